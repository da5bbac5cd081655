//go:build linux

package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Stock returns a function that returns the path of the stock binary. The first call builds the binary in the
// directory, as it is shipped. If the environment variable is set, it names another binary, and nothing is built.
func Stock(variable string, dir func() string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if path := os.Getenv(variable); path != "" {
			return path, nil
		}
		path := filepath.Join(dir(), "capture")
		return path, build(path)
	})
}

// build builds the binary of the service, with further flags of go build.
func build(path string, flags ...string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencapture/capture").Output()
	if err != nil {
		return fmt.Errorf("the directory of the service's module: %w", err)
	}
	args := append([]string{"build", "-C", strings.TrimSpace(string(root)), "-trimpath", "-o", path}, flags...)
	output, err := exec.Command("go", append(args, "github.com/opencapture/capture")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

// Service is a running capture serve that has started.
type Service struct {
	*Process
	// URL and Admin are where SDKs and operators reach the service. Broker is the address of the embedded broker; empty
	// if there is none.
	URL, Admin, Broker string
}

// startPatience is how long a start may take. A traced service without Kafka takes seconds, and several times as long
// on a machine that does other work as well.
const startPatience = 2 * time.Minute

var (
	saysURL    = regexp.MustCompile(`(?m)^listening +(http://\S+)$`)
	saysAdmin  = regexp.MustCompile(`(?m)^metrics +(http://\S+)/metrics$`)
	saysBroker = regexp.MustCompile(`(?m)^events to +embedded broker at (\S+) `)
)

// Serve runs the command line of a service on free ports and returns when the service has said that all its parts have
// started. The arguments are those of Start.
func Serve(dir, output string, environ []string, command ...string) (*Service, error) {
	// What an earlier run has said is not for this one.
	before := int64(0)
	if info, err := os.Stat(output); err == nil {
		before = info.Size()
	}
	p, err := Start(dir, output, append([]string{
		"PATH=" + os.Getenv("PATH"), "CAPTURE_TRANSPORT__LISTEN=127.0.0.1:0", "CAPTURE_ADMIN__LISTEN=127.0.0.1:0",
	}, environ...), command...)
	if err != nil {
		return nil, err
	}
	s := &Service{Process: p}
	if err := s.await(before); err != nil {
		s.Kill()
		return nil, fmt.Errorf("%w\n%s", err, Tail(output))
	}
	return s, nil
}

// await returns when the service has said where it listens, behind the first bytes of its output.
func (s *Service) await(before int64) error {
	return Poll(startPatience, 5*time.Millisecond, func() (bool, error) {
		output, err := os.ReadFile(s.Output)
		if err != nil {
			return false, err
		}
		output = output[before:]
		if admin := saysAdmin.FindSubmatch(output); admin != nil {
			url := saysURL.FindSubmatch(output)
			if url == nil {
				return false, errors.New("the service does not say where it listens")
			}
			s.URL, s.Admin = string(url[1]), string(admin[1])
			if broker := saysBroker.FindSubmatch(output); broker != nil {
				s.Broker = string(broker[1])
			}
			return true, nil
		}
		return false, s.Ended()
	})
}

// answerPatience is how long Get waits for an answer.
const answerPatience = time.Minute

var client = &http.Client{Timeout: answerPatience}

// Get returns the status and the body of a URL.
func Get(url string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// Metrics returns the metrics of a service with its operators' listener at admin, each as the sum over its labels.
func Metrics(admin string) (map[string]float64, error) {
	_, body, err := Get(admin + "/metrics")
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		end, start := strings.LastIndexByte(line, ' '), strings.IndexAny(line, " {")
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", line, err)
		}
		sums[line[:start]] += value
	}
	return sums, nil
}
