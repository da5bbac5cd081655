// Package module is what every module of Capture is made with: the Module value that a build includes or leaves out,
// and the parts that a module may give to the app: commands, start facts, and background members.
package module
