package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Fault is one mistake in the configuration.
type Fault struct {
	// Key is the dotted path of the key at fault, such as kafka.topics.events. It is empty if no single key is at
	// fault.
	Key     string
	Message string
}

func (f Fault) String() string {
	if f.Key == "" {
		return f.Message
	}
	return f.Key + ": " + f.Message
}

// Faults collects faults so that all of them are reported at once. The zero value is ready to use. It is not safe for
// concurrent use.
type Faults struct{ list []Fault }

// Addf records a fault about a key.
func (f *Faults) Addf(key, format string, args ...any) {
	f.list = append(f.list, Fault{Key: key, Message: fmt.Sprintf(format, args...)})
}

// Check records a fault unless ok.
func (f *Faults) Check(ok bool, key, format string, args ...any) {
	if !ok {
		f.Addf(key, format, args...)
	}
}

// Nest records the faults of a nested section below key. err is what the section's Validate returned.
func (f *Faults) Nest(key string, err error) {
	if err == nil {
		return
	}
	var nested *FaultsError
	if !errors.As(err, &nested) {
		f.Addf(key, "%s", err)
		return
	}
	for _, fault := range nested.Faults {
		path := fault.Key
		switch {
		case key == "":
		case path == "":
			path = key
		default:
			path = key + "." + path
		}
		f.list = append(f.list, Fault{Key: path, Message: fault.Message})
	}
}

// CheckAddress records a fault unless the value is host:port with a port from 0 to 65535, and returns the host.
func (f *Faults) CheckAddress(key, value string) (host string) {
	host, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	f.Check(err == nil && IsHostName(host), key, "must be host:port, such as 127.0.0.1:8001, got %q", value)
	return host
}

// IsHostName reports whether the host of an address may be one: it has nothing of a URL in it, such as a scheme, a path
// or a user, nothing of a list, and no wildcard. An empty host, which stands for all addresses of the machine, may be
// one.
func IsHostName(host string) bool { return !strings.ContainsAny(host, "@/?#*,;\\\"' \t\r\n") }

// CheckDir records a fault unless this process can write to the directory or, if it does not exist, can make it. It
// changes nothing. The fault ends with what follows from it.
func (f *Faults) CheckDir(key, dir, consequence string) {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at):
			continue
		case err != nil:
		case !info.IsDir():
			err = fmt.Errorf("%s is not a directory", at)
		default:
			if refused := unix.Access(at, unix.W_OK|unix.X_OK); refused != nil {
				err = fmt.Errorf("cannot write to %s: %w", at, refused)
			}
		}
		if err != nil {
			f.Addf(key, "%q cannot be used: %s: %s", dir, err, consequence)
		}
		return
	}
}

// Err returns nil if no fault was recorded, else a *FaultsError with all of them.
func (f *Faults) Err() error {
	if len(f.list) == 0 {
		return nil
	}
	return &FaultsError{Faults: append([]Fault(nil), f.list...)}
}

// FaultsError holds every fault that was found.
type FaultsError struct{ Faults []Fault }

func (e *FaultsError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, fault := range e.Faults {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}
