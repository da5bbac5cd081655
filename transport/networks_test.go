package transport

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/configs"
)

func networksOf(t *testing.T, texts ...string) networks {
	t.Helper()
	n, err := newNetworks(configs.ListOf(texts...).Items())
	require.NoError(t, err)
	return n
}

func TestNetworksHoldTheirAddressesAndNoOthers(t *testing.T) {
	n := networksOf(t, "10.0.0.0/8", "192.168.1.7", "::ffff:172.16.0.1", "::ffff:198.51.100.0/120", "2001:db8::/32",
		"fe80::1%eth0", "10.1.2.3/8", "0.0.0.0/32", "255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	for address, want := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "9.255.255.255": false, "11.0.0.0": false,
		"192.168.1.7": true, "192.168.1.6": false, "192.168.1.8": false,
		"172.16.0.1": true, "198.51.100.255": true, "198.51.101.0": false,
		"2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db9::": false, "2001:db7::": false,
		"fe80::1": true, "0.0.0.0": true, "0.0.0.1": false, "255.255.255.255": true, "255.255.255.254": false,
		"::": false, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": true,
	} {
		require.Equal(t, want, n.contain(netip.MustParseAddr(address)), address)
	}
	require.False(t, networks(nil).contain(netip.MustParseAddr("10.0.0.1")))
	everybody := networksOf(t, "0.0.0.0/0", "::/0")
	require.Len(t, everybody, 2)
	require.True(t, everybody.contain(netip.MustParseAddr("203.0.113.9")))
	require.True(t, everybody.contain(netip.MustParseAddr("::1")))
}

// A linear search is the reference. Small addresses meet, overlap and touch often.
func TestTheSearchInNetworksFindsWhatALinearOneFinds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	address := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(64))}) }
	for range 2000 {
		var prefixes []netip.Prefix
		var texts []string
		for range random.IntN(8) {
			prefix := netip.PrefixFrom(address(), 26+random.IntN(7))
			prefixes, texts = append(prefixes, prefix), append(texts, prefix.String())
		}
		n := networksOf(t, texts...)
		for i := 1; i < len(n); i++ {
			require.Positive(t, n[i].first.Compare(n[i-1].last.Next()), "%v: spans that touch are one", texts)
		}
		for range 64 {
			a, want := address(), false
			for _, prefix := range prefixes {
				want = want || prefix.Contains(a)
			}
			require.Equal(t, want, n.contain(a), "%v: %s", texts, a)
		}
	}
}

// A file that was meant to be another one, such as an error page, has a fault in each line. It may hold secrets.
func TestAFaultNamesTheLineOfAFileAndShowsNothingOfIt(t *testing.T) {
	_, err := newNetworks([]configs.Item{
		{Text: "10.0.0.0/33"}, {Text: "nonsense"},
		{Text: "10.0.0.0/8", File: "file:/a", Line: 1}, {Text: "secret", File: "file:/a", Line: 3},
		{Text: "secret", File: "file:/a", Line: 4}, {Text: "secret", File: "file:/b", Line: 2},
	})
	require.EqualError(t, err, "10.0.0.0/33: is neither a network such as 10.0.0.0/8 nor an address\n"+
		"nonsense: is neither a network such as 10.0.0.0/8 nor an address\n"+
		"file:/a, line 3: is neither a network such as 10.0.0.0/8 nor an address\n"+
		"file:/b, line 2: is neither a network such as 10.0.0.0/8 nor an address")
}
