package project

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/transport/route"
)

func parseGroup(name string) (route.Group, error) {
	group := route.Group(name)
	if slices.Contains(route.Groups(), group) {
		return group, nil
	}
	words := make([]string, len(route.Groups()))
	for i, known := range route.Groups() {
		words[i] = string(known)
	}
	if nearest := configs.Nearest(name, words); nearest != "" {
		return "", fmt.Errorf("must be a group of routes, got %s: did you mean %s?", shown(name), nearest)
	}
	return "", fmt.Errorf("must be a group of routes, one of %s, got %s", strings.Join(words, ", "), shown(name))
}

// parseNetwork reads a network or an address, which is a network of one. An IPv4 address in the form of IPv6 is one of
// IPv4, as the addresses of clients are.
func parseNetwork(text string) (netip.Prefix, error) {
	network, err := netip.ParsePrefix(text)
	if err != nil {
		address, err := netip.ParseAddr(text)
		if err != nil || address.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("must be a network such as 203.0.113.0/24 or an address, got %s",
				shown(text))
		}
		network = netip.PrefixFrom(address, address.BitLen())
	}
	if mapped := network.Addr(); mapped.Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(mapped.Unmap(), network.Bits()-96)
	}
	return network.Masked(), nil
}

// AllowsAddress reports whether a client with this address may send. An address that cannot be read is in no network.
func (r *Record) AllowsAddress(client string) bool {
	if len(r.Networks) == 0 {
		return true
	}
	address, err := netip.ParseAddr(client)
	if err != nil {
		return false
	}
	address = address.WithZone("").Unmap()
	for _, network := range r.Networks {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// AllowsOrigin reports whether a request with this header Origin may send. An empty header is that of a client that is
// no browser.
func (r *Record) AllowsOrigin(origin string) bool {
	if len(r.Origins) == 0 {
		return true
	}
	if origin == "" {
		return !r.RequireOrigin
	}
	for i := range r.Origins {
		if r.Origins[i].Matches(origin) {
			return true
		}
	}
	return false
}

// AllowsGroup reports whether the project may use a group of routes. Routes that are in none of the stock groups are
// for everybody: the module that has them decides who may use them.
func (r *Record) AllowsGroup(group route.Group) bool {
	return len(r.Endpoints) == 0 || slices.Contains(r.Endpoints, group) || !slices.Contains(stockGroups, group)
}

var stockGroups = route.Groups()
