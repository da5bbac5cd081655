package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/transport/route"
)

// maxBody is the largest body of a set-up call on the wire, in bytes: an SDK says what it knows of a person, no more.
const maxBody = 1 << 20

// typeScript is the content type that browsers want for a script.
const typeScript = "application/javascript"

// How long an answer may be kept. SDKs ask for flags anew each time, though there are none. A configuration is good for
// a while, as it is at PostHog's.
var (
	keepNot   = route.Field{Name: "Cache-Control", Value: "no-store"}
	keepShort = route.Field{Name: "Cache-Control", Value: "public, max-age=300"}
	keepAsked = route.Field{Name: "Cache-Control", Value: "private, no-cache"}
)

// Answers answers the set-up calls without an upstream. It is safe for concurrent use.
type Answers struct{ texts *configs.Value[*texts] }

// texts are the answers of one configuration.
type texts struct {
	// flags are the answers to /flags without their last two fields: by whether the request is of version 2, and by
	// whether it wants the configuration as well.
	flags [2][2]string
	// decide are the answers to /decide, by the request's version less one.
	decide [4]route.Response
	// config is the configuration as JSON. script is the configuration as a script, in two parts that go around the
	// token.
	config        route.Response
	script        [2]string
	definitions   route.Response
	definitionTag string
	// lists are the answers, by path, to those who ask what there is of a kind: nothing.
	lists map[string]route.Response
}

// lists are the paths on which SDKs ask what there is of a kind, and the field of the answer that they read.
var lists = map[string]string{
	"/api/early_access_features": "earlyAccessFeatures",
	"/api/product_tours":         "product_tours",
	"/api/surveys":               "surveys",
	"/api/web_experiments":       "experiments",
}

type object = map[string]any

// NewAnswers returns answers that follow changes of the section.
func NewAnswers(live *configs.Live) (*Answers, error) {
	texts, err := configs.NewValue(live, func(config Config) (*texts, error) { return newTexts(config), nil })
	if err != nil {
		return nil, err
	}
	return &Answers{texts: texts}, nil
}

func newTexts(config Config) *texts {
	a := &texts{}
	remote := remoteConfig(config)
	with := func(fields, more object) string {
		all := maps.Clone(fields)
		maps.Copy(all, more)
		return encode(all)
	}

	// Older SDKs read an object with the values of flags and another with their payloads. Newer SDKs read one object
	// that has all about each flag. With config=true, mobile SDKs and posthog-js of around 1.260 ask for their
	// configuration in the same call.
	values := object{"featureFlags": object{}, "featureFlagPayloads": object{}, "errorsWhileComputingFlags": false}
	details := object{"flags": object{}, "errorsWhileComputingFlags": false}
	for i, fields := range []object{values, details} {
		a.flags[i] = [2]string{open(encode(fields)), open(with(fields, remote))}
	}

	// The first version listed the flags that are on.
	for i, fields := range []object{{"featureFlags": []string{}}, {"featureFlags": object{}}, values, details} {
		a.decide[i] = answer(with(fields, remote), keepNot)
	}

	a.config = answer(encode(remote), keepShort)
	a.script = [2]string{
		`(function(){window._POSTHOG_REMOTE_CONFIG=window._POSTHOG_REMOTE_CONFIG||{};window._POSTHOG_REMOTE_CONFIG["`,
		`"]={config:` + encode(remote) + `,siteApps:[]}})();`,
	}

	definitions := encode(object{"flags": []string{}, "group_type_mapping": object{}, "cohorts": object{}})
	digest := sha256.Sum256([]byte(definitions))
	a.definitionTag = `"` + hex.EncodeToString(digest[:16]) + `"`
	a.definitions = answer(definitions, keepAsked, route.Field{Name: "ETag", Value: a.definitionTag})

	a.lists = map[string]route.Response{}
	for path, field := range lists {
		a.lists[path] = answer(encode(object{field: []string{}}), keepShort)
	}
	return a
}

// remoteConfig returns what an SDK is told to do. SDKs of any age read it, each of them some of it. It names every
// feature that is off, because an SDK that is told nothing goes by what it was told before.
func remoteConfig(config Config) object {
	var recording any = false
	if config.RecordingEndpoint != "" {
		recording = object{"endpoint": config.RecordingEndpoint}
	}
	return object{
		"analytics": object{"endpoint": config.AnalyticsEndpoint},
		// A browser compresses only if gzip-js is among these.
		"supportedCompression":  []string{"gzip", "gzip-js"},
		"elementsChainAsString": true,
		"sessionRecording":      recording,
		// posthog-js wants to be told that autocapture is not off and, up to 1.57, that it is on.
		"autocapture_opt_out":   !config.Autocapture,
		"config":                object{"enable_collect_everything": config.Autocapture},
		"heatmaps":              config.Heatmaps,
		"autocaptureExceptions": config.Exceptions,
		"errorTracking":         object{"autocaptureExceptions": config.Exceptions, "suppressionRules": []string{}},
		"captureDeadClicks":     false,
		"capturePerformance":    false,
		"defaultIdentifiedOnly": true,
		// A browser that is told that there are no flags does not ask for them, and never calls back a page that waits
		// for them.
		"hasFeatureFlags": true,
		"surveys":         false,
		"productTours":    false,
		"conversations":   false,
		"logs":            object{"captureConsoleLogs": false},
		"siteApps":        []string{},
		"toolbarParams":   object{},
		"isAuthenticated": false,
	}
}

// encode writes JSON that may also stand in a script.
func encode(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("setup: %v", err)) // All values here have types that JSON can write.
	}
	return string(text)
}

// open takes the closing brace off a JSON object, so that further fields can follow.
func open(text string) string { return strings.TrimSuffix(text, "}") }

func answer(body string, header ...route.Field) route.Response {
	return route.Response{Status: http.StatusOK, ContentType: route.TypeJSON, Body: body, Header: header}
}

// Routes returns the paths of the set-up calls.
func (a *Answers) Routes() []route.Route {
	type answer = func(context.Context, *route.Request) route.Response
	serve := func(path string, methods []string, handle answer) route.Route {
		return route.Route{
			Group: route.Setup, Path: path, Methods: methods, MaxBody: route.Fixed(maxBody), Handle: handle,
		}
	}
	get, both := []string{http.MethodGet, http.MethodHead}, []string{http.MethodGet, http.MethodHead, http.MethodPost}
	routes := []route.Route{
		serve("/flags", both, a.Flags),
		serve("/decide", both, a.Decide),
		serve("/array/:token/config", get, a.Config),
		serve("/array/:token/config.js", get, a.Script),
		serve("/flags/definitions", get, a.Definitions),
		serve("/api/feature_flag/local_evaluation", get, a.Definitions),
		serve("/api/projects/:project/feature_flags/:flag/remote_config", get, a.Payload),
	}
	for path := range lists {
		routes = append(routes, serve(path, get, func(_ context.Context, request *route.Request) route.Response {
			return a.texts.In(request.Config).lists[path]
		}))
	}
	return routes
}

// Flags answers that no flag is on for anybody. The answer has the request's id, which the SDK repeats in what it sends
// about flags.
func (a *Answers) Flags(_ context.Context, request *route.Request) route.Response {
	version, config := 0, 0
	if number(request.RawQuery) > 1 {
		version = 1
	}
	switch parameter(request.RawQuery, "config") {
	case "true", "1":
		config = 1
	}
	return answer(a.texts.In(request.Config).flags[version][config]+`,"requestId":`+encode(request.RequestID)+
		`,"evaluatedAt":`+strconv.FormatInt(request.Received.UnixMilli(), 10)+"}", keepNot)
}

// Decide answers older SDKs, which ask for everything in one call: there are no flags, and this is the configuration.
func (a *Answers) Decide(_ context.Context, request *route.Request) route.Response {
	texts := a.texts.In(request.Config)
	return texts.decide[min(max(number(request.RawQuery), 1), len(texts.decide))-1]
}

// Config answers the configuration as JSON.
func (a *Answers) Config(_ context.Context, request *route.Request) route.Response {
	return a.texts.In(request.Config).config
}

// Script answers the configuration as a script that keeps it under the token in the path. A token that would have to be
// escaped in the script is not found; its SDK then asks for the JSON.
func (a *Answers) Script(_ context.Context, request *route.Request) route.Response {
	token, _, _ := strings.Cut(strings.TrimPrefix(request.Path, "/array/"), "/")
	if !isToken(token) {
		return route.Response{Status: http.StatusNotFound, ContentType: route.TypeText, Body: "not found"}
	}
	script := a.texts.In(request.Config).script
	return route.Response{
		Status: http.StatusOK, ContentType: typeScript, Body: script[0] + token + script[1],
		Header: []route.Field{keepShort},
	}
}

// Definitions answers servers that evaluate flags by themselves: no flags are defined. A server that knows this answer
// already is told that nothing is new.
func (a *Answers) Definitions(_ context.Context, request *route.Request) route.Response {
	texts := a.texts.In(request.Config)
	if !matches(request.Get("If-None-Match"), texts.definitionTag) {
		return texts.definitions
	}
	return route.Response{Status: http.StatusNotModified, Header: texts.definitions.Header}
}

// Payload answers servers that ask for the payload of a flag: there is none. SDKs read JSON here whatever the status
// says, and posthog-node would give the text of an error to the application.
func (a *Answers) Payload(context.Context, *route.Request) route.Response {
	return answer("null", keepNot)
}

// isToken reports whether the text looks like PostHog's tokens. Such a text means the same in a path, in HTML and in a
// script.
func isToken(text string) bool {
	if text == "" || len(text) > 64 {
		return false
	}
	for _, c := range []byte(text) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// matches reports whether a list of entity tags, or *, names the tag (RFC 9110, 13.1.2).
func matches(list, tag string) bool {
	for list != "" {
		var one string
		one, list, _ = strings.Cut(list, ",")
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == tag || one == "*" {
			return true
		}
	}
	return false
}

// number returns the version that a query asks for, or 0 if it asks for none.
func number(query string) int {
	version, err := strconv.Atoi(parameter(query, "v"))
	if err != nil {
		return 0
	}
	return version
}

// parameter returns the first value of a query's parameter as it stands. The values that are read here have nothing to
// escape.
func parameter(query, name string) string {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if key, value, _ := strings.Cut(pair, "="); key == name {
			return value
		}
	}
	return ""
}
