package transport

import (
	"net/netip"
	"slices"

	"github.com/opencapture/capture/configs"
)

// networks is a set of addresses: spans that do not touch, in order. A provider may have thousands of networks, and a
// client may write thousands of addresses into X-Forwarded-For.
type networks []span

// span is the addresses from first to last.
type span struct{ first, last netip.Addr }

// newNetworks reads CIDRs and single addresses. It reports the first fault of each file, and every other fault.
func newNetworks(items []configs.Item) (networks, error) {
	var all networks
	var faults configs.Faults
	faulty := map[string]bool{}
	for _, item := range items {
		network, ok := parseNetwork(item.Text)
		switch {
		case ok:
			all = append(all, spanOf(network))
		case item.File == "" || !faulty[item.File]:
			faulty[item.File] = true
			faults.Addf(item.Name(), "is neither a network such as 10.0.0.0/8 nor an address")
		}
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return all.merged(), nil
}

// parseNetwork reads a CIDR or an address, which is a network of one. An IPv4 address in the form of IPv6 is one of
// IPv4, as the addresses of clients are.
func parseNetwork(text string) (netip.Prefix, bool) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, false
		}
		network = netip.PrefixFrom(address.WithZone(""), address.BitLen())
	}
	if mapped := network.Addr(); mapped.Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(mapped.Unmap(), network.Bits()-96)
	}
	return network.Masked(), true
}

// spanOf returns the addresses of a network.
func spanOf(network netip.Prefix) span {
	last := network.Addr().AsSlice()
	for bit := network.Bits(); bit < 8*len(last); bit++ {
		last[bit/8] |= 1 << (7 - bit%8)
	}
	address, _ := netip.AddrFromSlice(last)
	return span{network.Addr(), address}
}

// merged puts the spans in order, and makes one of those that overlap or touch.
func (n networks) merged() networks {
	slices.SortFunc(n, func(a, b span) int { return a.first.Compare(b.first) })
	var merged networks
	for _, next := range n {
		if end := len(merged) - 1; end >= 0 {
			before := &merged[end]
			if next.first.Compare(before.last) <= 0 || next.first == before.last.Next() {
				if next.last.Compare(before.last) > 0 {
					before.last = next.last
				}
				continue
			}
		}
		merged = append(merged, next)
	}
	return merged
}

// contain reports whether the set has the address.
func (n networks) contain(address netip.Addr) bool {
	// The span of the address is the one before the first that begins behind it.
	behind, _ := slices.BinarySearchFunc(n, address, func(s span, address netip.Addr) int {
		if s.first.Compare(address) <= 0 {
			return -1
		}
		return 1
	})
	return behind > 0 && n[behind-1].last.Compare(address) >= 0
}
