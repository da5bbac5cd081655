// Package control is what operators set and see of projects: the records of projects and restrictions in the shared
// store, and how much of its quotas a project has used. It has the endpoints below, made with modules/admin/api, and
// the commands "capture project", "capture restriction" and "capture quota", which call them.
//
//	/admin/projects                                              GET lists projects
//	/admin/projects/{token}                                      GET, PUT and DELETE a project
//	/admin/projects/{token}/quotas                               GET the limits that hold for it, and their use
//	/admin/projects/{token}/quotas/{resource}/{period}           PUT and DELETE one quota of the project's record
//	/admin/projects/{token}/quotas/{resource}/{period}/refund    POST gives back events that were counted
//	/admin/projects/{token}/quotas/{resource}/{period}/reset     POST gives back all of them
//	/admin/restrictions                                          GET lists rules
//	/admin/restrictions/{name}                                   GET, PUT and DELETE a rule
//
// The package changes records only. What projects may send is modules/auth's to enforce, how much modules/quota's, and
// what rules say modules/routing's: their nodes hear of a changed record within a second.
package control
