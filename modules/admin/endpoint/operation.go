package endpoint

// Operation describes an endpoint in the OpenAPI document that the listener serves. The document has the method, the
// path, the access and the sentence of About from the Endpoint itself.
type Operation struct {
	// Parameters are those of the query, the headers and the path. A parameter of the path that is not listed is text.
	Parameters []Parameter
	// Body is any value of the type that the JSON body of a request has. Nil: a request has no body.
	Body any
	// Answers are the answers, by ascending status. The document has 401 and 403 by itself where the access says so.
	Answers []Answer
}

// Parameter is a parameter of a request.
type Parameter struct {
	// In is where it stands: query, header or path.
	In   Place
	Name string
	// About says in a sentence what the parameter does.
	About string
	// Of is any value of the parameter's type: a string, an int or a bool. Nil is a string.
	Of any
	// Values are all allowed values, if they are known.
	Values   []string
	Required bool
}

// Place is where a parameter stands in a request.
type Place string

// The places.
const (
	Query  Place = "query"
	Header Place = "header"
	Path   Place = "path"
)

// Answer is an answer that an endpoint may give.
type Answer struct {
	Status int
	// About says in a sentence when the endpoint answers so.
	About string
	// Of is any value of the type that the JSON of the answer has. Nil: the answer is no JSON, or has no body.
	//
	// Fields of such a type are described by tags: doc is the sentence, enum lists the values, separated by commas, and
	// format is a format of JSON Schema.
	Of any
	// Type is the content type. Empty: application/json if there is Of, else the answer has no body.
	Type string
	// Headers are headers that only such an answer has, each with what it says.
	Headers map[string]string
}
