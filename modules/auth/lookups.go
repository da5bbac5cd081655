package auth

import (
	"hash/maphash"
	"net/netip"

	"golang.org/x/time/rate"
)

// lookups bounds how many lookups requests with tokens that the node does not know may cause. One client gets no more
// than a part of them. It is safe for concurrent use.
type lookups struct {
	all  *rate.Limiter
	seed maphash.Seed
	// clients has a limiter for each group of client addresses that share a hash.
	clients [clientGroups]*rate.Limiter
}

const (
	clientGroups = 1024
	// clientShare is the part of all lookups, as a divisor, that one client may cause.
	clientShare = 4
	// networkBits is the network that counts as one client of IPv6, since a client has all addresses of one.
	networkBits = 64
)

func newLookups(perSecond int) *lookups {
	l := &lookups{all: rate.NewLimiter(rate.Limit(perSecond), perSecond), seed: maphash.MakeSeed()}
	share := max(1, perSecond/clientShare)
	for i := range l.clients {
		l.clients[i] = rate.NewLimiter(rate.Limit(share), share)
	}
	return l
}

// allow reports whether a request of the client may cause a lookup now.
func (l *lookups) allow(client string) bool {
	return l.clients[l.group(client)].Allow() && l.all.Allow()
}

// group returns the number of the client's group.
func (l *lookups) group(client string) uint64 {
	if address, err := netip.ParseAddr(client); err == nil && address.Is6() && !address.Is4In6() {
		network, _ := address.Prefix(networkBits)
		client = network.String()
	}
	return maphash.String(l.seed, client) % clientGroups
}
