package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/opencapture/capture/modules/store"
)

// Reserve implements store.Reserver. All digests of a request go in one round trip, with those of other requests.
func (s *Store) Reserve(
	ctx context.Context, token string, owner store.Owner, digests []store.Digest, lease time.Duration,
	claims []store.Claim,
) error {
	if len(claims) != len(digests) {
		return fmt.Errorf("%d claims for %d digests", len(claims), len(digests))
	}
	if len(digests) == 0 {
		return nil
	}
	return s.metrics.count(callReserve, s.reserve(ctx, token, owner, digests, lease, claims))
}

func (s *Store) reserve(
	ctx context.Context, token string, owner store.Owner, digests []store.Digest, lease time.Duration,
	claims []store.Claim,
) error {
	if int64(lease) > s.lease.Load() {
		s.lease.Store(int64(lease))
	}
	c := newCall(len(digests))
	defer c.free()
	key := s.keys.digests(token)
	r := &c.reservation
	for rest := digests; len(rest) > 0; {
		some := rest[:min(len(rest), together)]
		rest = rest[len(some):]
		c.ops = append(c.ops, r.op(key, owner, lease, some))
		r = &reservation{}
	}
	if err := s.do(ctx, key, token, c); err != nil {
		return err
	}
	for i := range c.ops {
		some := claims[:min(len(claims), together)]
		claims = claims[len(some):]
		if err := readClaims(c.result(i).(*redis.Cmd), some); err != nil {
			return err
		}
	}
	return nil
}

// reservation is the arguments of the script that reserves. They are pointers into it, so that they need no memory of
// their own.
type reservation struct {
	key           string
	lease         int64 // in ms
	name, digests bytes
	args          [7]any
}

// op fills the reservation in, and returns the command.
func (r *reservation) op(key string, owner store.Owner, lease time.Duration, digests []store.Digest) op {
	var name [ownerBytes]byte
	writeOwner(&name, owner)
	r.key, r.lease, r.name, r.digests = key, max(1, lease.Milliseconds()), append(r.name[:0], name[:]...), r.digests[:0]
	for i := range digests {
		r.digests = append(r.digests, digests[i][:]...)
	}
	r.args = [...]any{nil, nil, 1, &r.key, &r.name, &r.lease, &r.digests}
	return reserveScript.run(r.args[:])
}

// bytes is an argument of a command.
type bytes []byte

// MarshalBinary implements encoding.BinaryMarshaler, by which go-redis knows what to send.
func (b *bytes) MarshalBinary() ([]byte, error) { return *b, nil }

// readClaims reads the answer of the script.
func readClaims(cmd *redis.Cmd, claims []store.Claim) error {
	answer := cmd.Val()
	if all, ok := answer.(int64); ok && all == 1 {
		for i := range claims {
			claims[i] = store.Reserved
		}
		return nil
	}
	found, ok := answer.(string)
	if !ok || len(found) != len(claims) {
		return errShape
	}
	for i := range claims {
		claims[i] = store.Claim(found[i] - '0')
	}
	return nil
}

// Settle implements store.Reserver.
func (s *Store) Settle(
	token string, owner store.Owner, commit []store.Digest, window time.Duration, release []store.Digest,
) {
	if len(commit)+len(release) == 0 {
		return
	}
	until := time.Now().Add(worthFor(time.Duration(s.lease.Load()), window, len(commit)))
	shard, err := s.servers.shard(s.keys.digests(token), token)
	if err != nil {
		s.lost.add(token, owner, commit, window, release, until)
		return
	}
	if shard.settlements.add(token, owner, commit, window, release, until) {
		select {
		case shard.kick <- struct{}{}:
		default:
		}
	}
}

// worthFor returns for how long Redis is to be told of the end of a request. What is released is free anyway when its
// lease has ended. What is done is told for longer: its window, which begins when Redis has been told, is to end no
// later than an eighth of it after its time.
func worthFor(lease, window time.Duration, committed int) time.Duration {
	if committed == 0 {
		return lease
	}
	return max(lease, window/8)
}

// settleElsewhere hands settlements over to the servers that have their keys now.
func (s *Store) settleElsewhere(groups []*group) {
	for _, g := range groups {
		to := s.lost
		if shard, err := s.servers.shard(s.keys.digests(g.token), g.token); err == nil {
			to = shard.settlements
		}
		to.putBack([]*group{g})
	}
}
