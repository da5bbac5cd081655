package testkit

import (
	"context"
	"io"
	"net/http"
	"strings"
)

// Response is an answer, read whole.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Request sends a request to a path (with query) of the service and returns the answer. header holds names and values
// in turn. A request that gets no answer fails the test.
func (s *Service) Request(method, path, body string, header ...string) Response {
	s.tb.Helper()
	response, err := s.TryRequest(method, path, body, header...)
	if err != nil {
		s.tb.Fatalf("testkit: %v", err)
	}
	return response
}

// TryRequest is Request for a request that may get no answer.
func (s *Service) TryRequest(method, path, body string, header ...string) (Response, error) {
	request, err := http.NewRequestWithContext(context.Background(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		return Response{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	return s.do(request)
}

// Post posts a body as an SDK does.
func (s *Service) Post(path, body string, header ...string) Response {
	s.tb.Helper()
	return s.Request(http.MethodPost, path, body, header...)
}

// Admin sends a GET to a path of the operators' listener.
func (s *Service) Admin(path string) Response {
	s.tb.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.AdminURL+path, nil)
	if err != nil {
		s.tb.Fatalf("testkit: %v", err)
	}
	response, err := s.do(request)
	if err != nil {
		s.tb.Fatalf("testkit: %v", err)
	}
	return response
}

func (s *Service) do(request *http.Request) (Response, error) {
	answer, err := s.client.Do(request)
	if err != nil {
		return Response{}, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return Response{}, err
	}
	return Response{Status: answer.StatusCode, Header: answer.Header, Body: string(body)}, nil
}
