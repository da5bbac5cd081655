// Package csp serves POST /report, where browsers report what a page's Content-Security-Policy has stopped:
//
//	Content-Security-Policy: default-src 'self'; report-uri https://capture.example/report/?token=phc_...
//
// A report comes in one of two forms, whatever the content type says:
//
//   - as one object {"csp-report": {...}}, which report-uri asks for (application/csp-report);
//   - as an object {"type": "csp-violation", "body": {...}} of the Reporting API, or an array of such objects, which
//     report-to asks for (application/reports+json).
//
// Each report becomes an event $csp_violation as PostHog's own service makes it: the fields of both forms have the same
// names there ($csp_document_url, $csp_violated_directive and so on), and $csp_raw_report is the report itself. A
// report of the Reporting API that a tab has crashed becomes an event $browser_crash_report. Other reports of that API,
// which a browser sends along, are left out.
//
// The query has the project's token (token or api_key) and may have distinct_id and session_id (else both are made up),
// the version of the policy (v), and sample_rate: from 0 to 1, the part of the violations to keep. Sampling goes by the
// page and the minute, so the reports of one page's visit are kept or dropped together. Crashes are never sampled.
//
// The answer to reports that are safe, or that are not kept, is 204 without a body, as browsers read none. Faults are
// answered as v0 answers them.
package csp
