package transport

import (
	"net/netip"
	"sync"
)

// shares are what each address holds of what all clients share: connections, and the bytes of the requests that are
// being received or handled, as they come. It has an entry for an address only while the address holds something. It is
// safe for concurrent use.
//
// Nobody is counted under the zero address: a proxy, behind which any number of clients may be.
type shares struct {
	mu sync.Mutex
	of map[netip.Addr]holding
}

type holding struct {
	connections int
	bytes       int64
}

func newShares() *shares { return &shares{of: map[netip.Addr]holding{}} }

// holder returns the address under which a client is counted. A client with an IPv6 address commonly has the 2^64
// addresses of its network, so it is counted as its network.
func holder(address netip.Addr) netip.Addr {
	if address.Is6() {
		network, _ := address.WithZone("").Prefix(64)
		return network.Addr()
	}
	return address
}

// connect counts a connection and reports whether the address may have it: its share is most.
func (s *shares) connect(address netip.Addr, most int) bool {
	return s.change(address, func(h *holding) bool {
		h.connections++
		return h.connections <= most
	})
}

// disconnect takes a connection off the count.
func (s *shares) disconnect(address netip.Addr) {
	s.change(address, func(h *holding) bool { h.connections--; return true })
}

// change changes what an address holds, unless f returns false.
func (s *shares) change(address netip.Addr, f func(*holding) bool) bool {
	if !address.IsValid() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of[address]
	if !f(&h) {
		return false
	}
	if h == (holding{}) {
		delete(s.of, address)
	} else {
		s.of[address] = h
	}
	return true
}

// share is what one request holds of its address's share of bytes. It belongs to one goroutine.
type share struct {
	shares  *shares
	address netip.Addr
	most    int64 // of all requests of the address
	held    int64
}

// raise enlarges the request's part to n bytes, unless it has them, and reports whether the address may have them.
func (s *share) raise(n int64) bool {
	more := n - s.held
	if more <= 0 {
		return true
	}
	ok := s.shares.change(s.address, func(h *holding) bool {
		h.bytes += more
		return h.bytes <= s.most
	})
	if ok {
		s.held = n
	}
	return ok
}

// release gives all of it back.
func (s *share) release() {
	if s.held == 0 {
		return
	}
	s.shares.change(s.address, func(h *holding) bool { h.bytes -= s.held; return true })
	s.held = 0
}
