package transport

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

const origin = "Origin: https://shop.example\r\n"

// A host that was configured with a slash at its end makes //batch/ of /batch/. The request is served where it is: a
// redirect would lose the body.
func TestSlashesInARowAreOne(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	for _, path := range []string{"//batch/", "///batch//", "/i//v0///e/", "//i/v0/e//?ver=1",
		"http://x//batch/", "HTTPS://x/batch/"} {
		response, body := c.send("POST", request("POST", path, "", event))
		require.Equal(t, 200, response.StatusCode, path+" "+body)
	}
	require.Len(t, f.processor.ips, 6)
	response, body := c.send("GET", "GET //e//?data=%7B%22event%22%3A%22a%22%2C%22distinct_id%22%3A%22//u//%22%2C"+
		"%22token%22%3A%22k%22%7D HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 200, response.StatusCode, body)
	for _, target := range []string{"http://x", "http://x?a=//", "//", "/"} {
		response, body = c.send("GET", "GET "+target+" HTTP/1.1\r\nHost: x\r\n\r\n")
		require.Equal(t, 200, response.StatusCode, target)
		require.Equal(t, "capture", body)
	}
	response, _ = c.send("OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 405, response.StatusCode)
}

// A URL in the query is no host, also where the client names none.
func TestAQueryWithAURLIsNoTarget(t *testing.T) {
	c := serve(t, nil).dial(t)
	for _, head := range []string{" HTTP/1.1\r\nHost: x\r\n\r\n", " HTTP/1.1\r\nHost:\r\n\r\n",
		" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"} {
		response, body := c.send("GET", "GET /_liveness?next=http://other//e/"+head)
		require.Equal(t, 200, response.StatusCode)
		require.Equal(t, "ok", body)
	}
}

// A browser adds the cookies of the site that the service is behind. They mean nothing here.
func TestCookiesCountForNothing(t *testing.T) {
	f := serve(t, nil)
	sent, err := os.ReadFile("testdata/29-large-cookies.http")
	require.NoError(t, err)
	c := f.dial(t)
	response, body := c.send("POST", string(sent))
	require.Equal(t, 200, response.StatusCode, body)
	for _, cookies := range []string{
		"Cookie: a=" + strings.Repeat("x", 500_000) + "\r\n",
		strings.Repeat("cookie: a=b; c=\xc3\xa9\r\n", 10_000),
		"Cookie:\r\nCOOKIE: \t\r\n",
	} {
		response, body = c.send("POST", request("POST", "/e/", cookies+"X-Long: "+strings.Repeat("x", 60_000)+"\r\n",
			event))
		require.Equal(t, 200, response.StatusCode, body)
	}
	require.Len(t, f.processor.ips, 4)
	endless := origin + "Cookie: a=" + strings.Repeat("x", 2<<20) + "\r\n"
	response, body = f.dial(t).send("POST", request("POST", "/e/", endless, ""))
	require.Equal(t, 431, response.StatusCode, "but they do not go on for ever")
	require.Contains(t, body, "with the cookies, exceed 1048576 bytes")
	require.Zero(t, f.budget.InUse())
}

func TestAHeadTakesMemoryFromTheBudgetAsItGrows(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	_, err := io.WriteString(c, "POST /e/ HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("x", 60_000))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.budget.InUse() > 150_000 }, patience, time.Millisecond)
	_, err = io.WriteString(c, "\r\nContent-Length: 0\r\n\r\n")
	require.NoError(t, err)
	response, _ := c.answer("POST")
	require.Equal(t, 400, response.StatusCode, "an empty body")
	require.Eventually(t, func() bool { return f.budget.InUse() == 0 }, patience, time.Millisecond)

	release := spend(f.budget)
	defer release()
	unfinished := f.dial(t)
	_, err = io.WriteString(unfinished, "POST /e/ HTTP/1.1\r\n"+origin+"X-Long: "+strings.Repeat("x", 10_000))
	require.NoError(t, err)
	response, _ = unfinished.answer("POST")
	require.Equal(t, 503, response.StatusCode, "the answer does not wait for the rest")
	requireCORS(t, response, "https://shop.example")
	probe := f.dial(t)
	response, _ = probe.send("GET", "GET /_liveness HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 200, response.StatusCode, "a small head is free")
	response, body := probe.send("GET", "GET /_liveness HTTP/1.1\r\nHost: x\r\n"+origin+"X-Long: "+
		strings.Repeat("x", 10_000)+"\r\n\r\n")
	require.Equal(t, 503, response.StatusCode)
	require.Equal(t, "5", response.Header.Get("Retry-After"))
	require.Contains(t, body, "too much is being received")
	requireCORS(t, response, "https://shop.example")
}

func requireCORS(t *testing.T, response *http.Response, origin string) {
	t.Helper()
	require.Equal(t, origin, response.Header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, response.Header.Get("Vary"), "Origin")
	if origin != "*" {
		require.Equal(t, "true", response.Header.Get("Access-Control-Allow-Credentials"))
	}
}

// A page must be able to read why its request was refused. The origin counts wherever it is in the head, as far as the
// head has come.
func TestEveryRefusalCarriesCORS(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxBody = 100 })
	post := "POST /e/ HTTP/1.1\r\nHost: x\r\n"
	for name, test := range map[string]struct {
		sent   string
		status int
		origin string
	}{
		"a large head":             {post + "X: " + strings.Repeat("x", 100_000) + "\r\n" + origin + "\r\n", 431, ""},
		"a large head behind it":   {post + origin + "X: " + strings.Repeat("x", 100_000) + "\r\n\r\n", 431, ""},
		"a long URL":               {"GET /?" + strings.Repeat("x", 1e5) + " HTTP/1.1\r\n" + origin + "\r\n", 431, ""},
		"many fields":              {post + strings.Repeat("X: y\r\n", 1000) + origin + "\r\n", 431, ""},
		"no request line":          {"nonsense\r\n" + origin + "\r\n", 400, ""},
		"a name with a space":      {post + "X : y\r\n" + origin + "\r\n", 400, ""},
		"a control character":      {post + "X: \x01\r\n" + origin + "\r\n", 400, ""},
		"a fault behind it":        {post + origin + "Content-Length: x\r\n\r\n", 400, ""},
		"no origin":                {post + "Content-Length: x\r\n\r\n", 400, "*"},
		"no host":                  {"POST /e/ HTTP/1.1\r\n" + origin + "\r\n", 400, ""},
		"an unknown version":       {"POST /e/ HTTP/3.0\r\n" + origin + "\r\n", 505, ""},
		"an unknown method":        {"BREW /e/ HTTP/1.1\r\nHost: x\r\n" + origin + "\r\n", 400, ""},
		"a broken body":            {post + origin + "Transfer-Encoding: chunked\r\n\r\nx", 400, ""},
		"a large body":             {request("POST", "/e/", origin, strings.Repeat("x", 150)), 413, ""},
		"a body that is far large": {request("POST", "/e/", origin, strings.Repeat("x", 15000)), 413, ""},
		"no path":                  {request("POST", "/nowhere", origin, ""), 404, ""},
		"no method":                {request("DELETE", "/e/", origin, ""), 405, ""},
	} {
		c := f.dial(t)
		response, _ := c.send("POST", test.sent)
		require.Equal(t, test.status, response.StatusCode, name)
		if test.origin == "" {
			test.origin = "https://shop.example"
		}
		requireCORS(t, response, test.origin)
	}
	slow := serve(t, func(c *Config) { c.HeaderTimeout, c.BodyTimeout = 100*time.Millisecond, 100*time.Millisecond })
	for _, sent := range []string{
		post + origin + "X: half", post + origin + "Content-Length: 10\r\n\r\nhalf",
	} {
		// On a busy machine the time may be over before the server has read the half that is there.
		require.Eventually(t, func() bool {
			c := slow.dial(t)
			_, err := io.WriteString(c, sent)
			require.NoError(t, err)
			response, err := http.ReadResponse(c.answers, nil)
			if err != nil || response.Header.Get("Access-Control-Allow-Origin") == "*" {
				return false
			}
			require.Equal(t, 408, response.StatusCode)
			requireCORS(t, response, "https://shop.example")
			return true
		}, patience, time.Millisecond)
	}
}

// What a client sends comes back only where CORS wants it, and only as printable ASCII.
func TestCORSRepeatsPrintableASCIIOnly(t *testing.T) {
	c := serve(t, nil).dial(t)
	for _, origin := range []string{"https://sh\xc3\xb6p.example", "https://shop\x80", "a\tb"} {
		response, _ := c.send("POST", request("POST", "/e/", "Origin: "+origin+"\r\n", event))
		require.Equal(t, 200, response.StatusCode)
		require.Empty(t, response.Header.Get("Access-Control-Allow-Origin"), origin)
	}
	for asked, repeated := range map[string]bool{"content-type,x-a": true, "x-\xc3\xa9": false, "x\ty": false} {
		response, _ := c.send("OPTIONS", request("OPTIONS", "/e/", origin+
			"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: "+asked+"\r\n", ""))
		require.Equal(t, 200, response.StatusCode)
		require.Equal(t, repeated, response.Header.Get("Access-Control-Allow-Headers") != "", asked)
	}
}

// Every request here is ambiguous or no HTTP. It is answered without a byte of itself, and what stands behind it on the
// connection is not taken for a request.
func TestWhatIsAmbiguousEndsTheConnectionAndIsNotQuoted(t *testing.T) {
	f := serve(t, nil)
	const mark = "q7x"
	hidden := request("POST", "/e/", "", event)
	post := "POST /e/ HTTP/1.1\r\nHost: x\r\n"
	chunks := post + "Transfer-Encoding: chunked\r\n\r\n"
	field := func(line string) string { return post + line + "\r\n\r\n" }
	for name, test := range map[string]struct {
		sent   string
		status int
	}{
		"a length with a plus":              {field("Content-Length: +0"), 400},
		"a length with a minus":             {field("Content-Length: -0"), 400},
		"a length with junk before":         {field("Content-Length: q7x0"), 400},
		"a length with junk behind":         {field("Content-Length: 0q7x"), 400},
		"a length in hexadecimal":           {field("Content-Length: 0x2b"), 400},
		"a length with a fraction":          {field("Content-Length: 0.0"), 400},
		"a length with a space within":      {field("Content-Length: 0 0"), 400},
		"a length of nothing":               {field("Content-Length:"), 400},
		"a length in other digits":          {field("Content-Length: \xd9\xa3"), 400},
		"a length with a no-break space":    {field("Content-Length: \xc2\xa00"), 400},
		"a length with a vertical tab":      {field("Content-Length: \v0"), 400},
		"a length with a form feed":         {field("Content-Length: 0\f"), 400},
		"a length of 20 digits":             {field("Content-Length: 00000000000000000000018446744073709551616"), 400},
		"two equal lengths":                 {field("Content-Length: 0\r\nContent-Length: 0"), 400},
		"two lengths of two spellings":      {field("Content-Length: 0\r\ncontent-length: 0"), 400},
		"a list of lengths":                 {field("Content-Length: 0, 0"), 400},
		"a length and chunks":               {field("Content-Length: 0\r\nTransfer-Encoding: chunked"), 400},
		"chunks and a length":               {field("Transfer-Encoding: chunked\r\nContent-Length: 0"), 400},
		"identity":                          {field("Transfer-Encoding: identity"), 400},
		"identity and a length":             {field("Transfer-Encoding: identity\r\nContent-Length: 0"), 400},
		"an unknown encoding":               {field("Transfer-Encoding: q7x"), 400},
		"two encodings":                     {field("Transfer-Encoding: gzip, chunked"), 400},
		"chunked twice":                     {field("Transfer-Encoding: chunked, chunked"), 400},
		"chunked on two lines":              {field("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400},
		"chunked with a parameter":          {field("Transfer-Encoding: chunked;q7x=1"), 400},
		"chunked in quotes":                 {field("Transfer-Encoding: \"chunked\""), 400},
		"chunked behind a comma":            {field("Transfer-Encoding: ,chunked"), 400},
		"no encoding":                       {field("Transfer-Encoding:"), 400},
		"chunked with a vertical tab":       {field("Transfer-Encoding: chunked\v"), 400},
		"chunked with a next line":          {field("Transfer-Encoding: chunked\xc2\x85"), 400},
		"chunked with a null":               {field("Transfer-Encoding: chunked\x00"), 400},
		"a space before the colon":          {field("Content-Length : 0"), 400},
		"a tab before the colon":            {field("Content-Length\t: 0"), 400},
		"a name with a null":                {field("X\x00q7x: y"), 400},
		"a name with a next line":           {field("Content-Length\x85: 0"), 400},
		"a name with a slash":               {field("X/q7x: y"), 400},
		"no name":                           {field(": q7x"), 400},
		"no colon":                          {field("q7x"), 400},
		"a value with a null":               {field("X: q7x\x00"), 400},
		"a value with a delete":             {field("X: q7x\x7f"), 400},
		"a value with an escape":            {field("X: \x1b[31mq7x"), 400},
		"a cookie with a null":              {field("Cookie: q7x\x00"), 400},
		"a cookie with a carriage return":   {field("Cookie: q7x\rContent-Length: 0"), 400},
		"a cookie on two lines":             {field("Cookie: a=b;\r\n q7x=1"), 400},
		"a bare carriage return":            {field("X: q7x\rContent-Length: 0"), 400},
		"a carriage return twice":           {field("X: q7x\r"), 400},
		"a bare line feed":                  {field("X: q7x\nContent-Length: 0"), 400},
		"an end of line feeds":              {post + "X: q7x\n\n", 400},
		"a folded line":                     {field("X: q7x\r\n Content-Length: 0"), 400},
		"a folded line with a tab":          {field("X: q7x\r\n\tContent-Length: 0"), 400},
		"a folded line first":               {"POST /e/ HTTP/1.1\r\n Host: q7x\r\n\r\n", 400},
		"a line of white space":             {field("X: q7x\r\n \r\nContent-Length: 0"), 400},
		"two hosts":                         {field("Host: q7x"), 400},
		"no host":                           {"POST /e/ HTTP/1.1\r\n\r\n", 400},
		"a host with a space":               {"GET / HTTP/1.1\r\nHost: q7x y\r\n\r\n", 400},
		"a host with a bracket":             {"GET / HTTP/1.1\r\nHost: [::q7x\r\n\r\n", 400},
		"a host with a user":                {"GET / HTTP/1.1\r\nHost: a<b>@q7x\r\n\r\n", 400},
		"a host with a path":                {"GET / HTTP/1.1\r\nHost: q7x/e/?\r\n\r\n", 400},
		"two spaces":                        {"POST  /q7x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a tab":                             {"POST\t/q7x\tHTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a space in the target":             {"POST /q7x q7x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a space behind the version":        {"POST /q7x HTTP/1.1 \r\nHost: x\r\n\r\n", 400},
		"a cookie before the request line":  {"Cookie: q7x\r\nPOST /q7x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a space before the method":         {" POST /q7x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"no version":                        {"GET /q7x\r\n\r\n", 400},
		"a version of its own":              {"GET /q7x HTTP/1.q7x\r\nHost: x\r\n\r\n", 505},
		"a lower case version":              {"GET /q7x http/1.1\r\nHost: x\r\n\r\n", 400},
		"the preface of HTTP/2":             {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		"a target that is none":             {"GET q7x HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"the authority of a tunnel":         {"CONNECT q7x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a target of another scheme":        {"GET ftp://q7x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a null in the target":              {"GET /q7x\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"a method with a quote":             {"P\"q7x /e/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"the greeting of TLS":               {"\x16\x03\x01\x02\x00\x01\x00q7x\r\n\r\n", 400},
		"chunks in the old version":         {"POST /e/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"a chunk of no digits":              {chunks + "\r\nq7x", 400},
		"a chunk of q7x digits":             {chunks + "q7x\r\n", 400},
		"a chunk with a plus":               {chunks + "+1\r\nx\r\n", 400},
		"a chunk with a leading space":      {chunks + " 1\r\nx\r\n", 400},
		"a chunk with an underscore":        {chunks + "1_0\r\nx\r\n", 400},
		"a chunk with a bare line feed":     {chunks + "1\nx\r\n", 400},
		"a chunk with two carriage returns": {chunks + "1\r\r\nx\r\n", 400},
		"a chunk with a null":               {chunks + "1\x00\r\nx\r\n", 400},
		"an extension with a line feed":     {chunks + "1;q7x\nx\r\n", 400},
		"an extension with a return":        {chunks + "1;q7x\rx\r\n", 400},
		"an extension that goes on":         {chunks + "1;" + strings.Repeat("q7x", 3000) + "\r\n", 400},
		"a chunk that overflows 64 bits":    {chunks + "10000000000000001\r\nx\r\n", 400},
		"a chunk that overflows 32 bits":    {chunks + "100000001\r\nx\r\n", 400},
		"a chunk's data without an end":     {chunks + "1\r\nxq7x\r\n", 400},
		"a chunk's data with a line feed":   {chunks + "1\r\nx\n0\r\n\r\n", 400},
		"trailers with a length":            {chunks + "0\r\nContent-Length: 3\r\n\r\n", 400},
		"trailers with an encoding":         {chunks + "0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"trailers that are folded":          {chunks + "0\r\nX: y\r\n q7x\r\n\r\n", 400},
		"trailers with a bare line feed":    {chunks + "0\r\nX: q7x\n\r\n\r\n", 400},
		"trailers that are none":            {chunks + "0\r\nq7x\r\n\r\n", 400},
		"trailers that do not end":          {chunks + "0\r\n" + strings.Repeat("X: q7x\r\n", 1000) + "\r\n", 400},
	} {
		c := f.dial(t)
		_, err := io.WriteString(c, test.sent+hidden+hidden)
		require.NoError(t, err)
		response, body := c.answer("POST")
		require.Equal(t, test.status, response.StatusCode, name)
		require.True(t, response.Close, name)
		require.NotContains(t, body+fmt.Sprint(response.Header), mark, name)
		c.requireClosed()
	}
	require.Empty(t, f.processor.ips)
	require.Zero(t, f.budget.InUse())
}

// What RFC 9112 allows is taken, also what few clients send.
func TestWhatIsUnusualButSoundIsTaken(t *testing.T) {
	f := serve(t, nil)
	length := fmt.Sprint(len(event))
	size := fmt.Sprintf("%x", len(event))
	sound := []string{
		"\r\n\r\nPOST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + "\r\n\r\n" + event,
		"POST /e/ HTTP/1.1\r\nhost:x\r\ncontent-length:\t " + length + " \t\r\n\r\n" + event,
		"POST /e/ HTTP/1.1\r\nHost: x\r\nContent-Length: 00" + length + "\r\nX:\r\nX: \xff\xfe\r\n\r\n" + event,
		"POST /e/ HTTP/1.1\r\nHost: x\r\nTRANSFER-ENCODING: cHuNkEd\r\n\r\n" + size + " \t\r\n" + event +
			"\r\n0\r\n\r\n",
		"POST /e/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n000" + size +
			";a=\"b;c\"\r\n" + event + "\r\n00;x\r\nX: y\r\n\r\n",
		"POST /e/ HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: " + length + "\r\n\r\n" + event,
	}
	together := strings.Join(sound, "")
	for name, write := range map[string]func(c *connection){
		"at once": func(c *connection) { _, _ = io.WriteString(c, together) },
		"byte by byte": func(c *connection) {
			for i := range len(together) {
				_, _ = io.WriteString(c, together[i:i+1])
			}
		},
	} {
		c := f.dial(t)
		go write(c)
		for _, sent := range sound {
			response, body := c.answer("POST")
			require.Equal(t, 200, response.StatusCode, name+sent+body)
			require.False(t, response.Close, name+sent)
		}
		c.requireUsable()
	}
}

// A client that waits for leave to send its body gets it when somebody wants the body. If nobody does, the connection
// ends: nobody knows whether the body will come.
func TestAClientMayWaitForLeaveToSendItsBody(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxBody = 100 })
	c := f.dial(t)
	head := "POST /e/ HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n"
	_, err := fmt.Fprintf(c, head, len(event))
	require.NoError(t, err)
	line, err := c.answers.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = c.answers.ReadString('\n')
	require.NoError(t, err)
	response, body := c.send("POST", event)
	require.Equal(t, 200, response.StatusCode, body)
	c.requireUsable()
	response, _ = c.send("POST", fmt.Sprintf(strings.Replace(head, "/e/", "/nowhere", 1), 50))
	require.Equal(t, 404, response.StatusCode)
	require.True(t, response.Close)
	c.requireClosed()
}

// The leave comes however long ago the last answer on the connection was, and its time to be written is over.
func TestAClientThatWasIdleGetsLeaveToSendItsBody(t *testing.T) {
	f := serve(t, nil)
	c := f.dial(t)
	c.requireUsable()
	f.connections.mu.Lock()
	for conn := range f.connections.open {
		require.NoError(t, conn.SetWriteDeadline(time.Unix(1, 0)))
	}
	f.connections.mu.Unlock()
	_, err := fmt.Fprintf(c, "POST /e/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
		len(event))
	require.NoError(t, err)
	line, err := c.answers.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = c.answers.ReadString('\n')
	require.NoError(t, err)
	response, body := c.send("POST", event)
	require.Equal(t, 200, response.StatusCode, body)
}

// HTTP/1.0 knows no answer before the answer.
func TestAClientOfTheOldVersionGetsNoLeave(t *testing.T) {
	c := serve(t, nil).dial(t)
	response, body := c.send("POST", fmt.Sprintf(
		"POST /e/ HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", len(event), event))
	require.Equal(t, 200, response.StatusCode, body)
	c.requireEnd()
}

func TestAConnectionEndsIfItsClientSaysSo(t *testing.T) {
	f := serve(t, nil)
	for _, headers := range []string{
		"Connection: close\r\n", "connection: Keep-Alive, CLOSE\r\n", "Connection: x\r\nConnection: close\r\n",
		"Connection: close\r\nConnection: keep-alive\r\n",
	} {
		c := f.dial(t)
		response, body := c.send("POST", request("POST", "/e/", headers, event))
		require.Equal(t, 200, response.StatusCode, headers+body)
		require.True(t, response.Close, headers)
		c.requireEnd()
	}
}

// The head of an idle connection holds nothing, and its buffer is small, whatever the largest head was.
func TestAnIdleConnectionHoldsLittleMemory(t *testing.T) {
	const count = 1000
	f := serve(t, func(c *Config) { c.MaxHeader = configs.MiB })
	large := "GET /_liveness HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 60_000) + "\r\n\r\n"
	conns := make([]*connection, count)
	answers := bufio.NewReader(nil)
	before := memoryInUse()
	for i := range conns {
		conns[i] = &connection{t: t, Conn: f.dial(t).Conn, answers: answers}
		answers.Reset(conns[i])
		response, _ := conns[i].send("GET", large)
		require.Equal(t, 200, response.StatusCode)
	}
	each := (memoryInUse() - before) / count
	t.Logf("%d bytes a connection, with the client's end", each)
	require.Less(t, each, int64(20<<10))
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
}

// What a large head took is gone with the request: nobody has it in stock for the next one, since the budget does not
// count it any more.
func TestTheMemoryOfLargeHeadsIsNotKept(t *testing.T) {
	const count = 200
	f := serve(t, nil)
	var before, after runtime.MemStats
	runtime.GC() // A second one would empty the stocks.
	runtime.ReadMemStats(&before)
	conns := make([]*connection, count)
	large := "GET /_liveness HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 60_000) + "\r\n"
	for i := range conns {
		conns[i] = f.dial(t)
		_, err := io.WriteString(conns[i], large)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return f.budget.InUse() > count*3*60_000 }, patience, time.Millisecond)
	for _, conn := range conns {
		response, _ := conn.send("GET", "\r\n")
		require.Equal(t, 200, response.StatusCode)
	}
	require.Eventually(t, func() bool { return f.budget.InUse() == 0 }, patience, time.Millisecond)
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / count
	t.Logf("%d bytes a connection, with the client's end", each)
	require.Less(t, each, int64(30<<10))
}

// memoryInUse returns the bytes of the heap that are reachable, and those of the stacks.
func memoryInUse() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}
