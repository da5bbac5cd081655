package listen

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// failing is a listener that fails with each of its errors before it accepts.
type failing struct {
	net.Listener
	errors []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errors) == 0 {
		return nil, net.ErrClosed
	}
	err := f.errors[0]
	f.errors = f.errors[1:]
	return nil, err
}

func TestAcceptWaitsForFileDescriptorsAndForNothingElse(t *testing.T) {
	full := &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	listener := &failing{errors: []error{full, full, full}}
	_, err := patientListener{listener}.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.Empty(t, listener.errors, "what passes is waited out")
}

func TestListenNamesTheKeyOfAnAddressInUse(t *testing.T) {
	listener, err := TCP(context.Background(), "transport.listen", "127.0.0.1:0")
	require.NoError(t, err)
	_, err = TCP(context.Background(), "transport.listen", listener.Addr().String())
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	require.ErrorContains(t, err, "transport.listen: cannot listen on "+listener.Addr().String()+
		": address already in use: see who uses it with ")
	require.Contains(t, err.Error(), ":"+port, "the command names the port")
	require.NoError(t, listener.Close())
}
