package transport

import (
	"net/netip"
	"strings"
)

// clientIP finds the client behind the proxies. It reads the addresses from the nearest to the farthest: first the
// peer, then X-Forwarded-For from right to left. The client is the first address outside the trusted networks, since an
// untrusted sender may have written every address further left. An entry that is not an address ends the search, and
// the address read before it counts.
func clientIP(peer netip.Addr, forwarded []string, trusted networks) netip.Addr {
	client := peer.Unmap().WithZone("")
	for i := len(forwarded) - 1; i >= 0; i-- {
		for list := forwarded[i]; list != ""; {
			if !trusted.contain(client) {
				return client
			}
			var entry string
			if comma := strings.LastIndexByte(list, ','); comma >= 0 {
				list, entry = list[:comma], list[comma+1:]
			} else {
				list, entry = "", list
			}
			next, ok := parseForwarded(strings.Trim(entry, " \t"))
			if !ok {
				return client
			}
			client = next
		}
	}
	return client
}

// parseForwarded reads an address, with or without a port.
func parseForwarded(entry string) (netip.Addr, bool) {
	if address, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
		return address.Unmap().WithZone(""), true
	}
	if withPort, err := netip.ParseAddrPort(entry); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}
