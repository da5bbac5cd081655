package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/opencapture/capture/modules/store"
)

// Reserve implements store.Reserver. It never waits.
func (s *Store) Reserve(
	ctx context.Context, token string, owner store.Owner, digests []store.Digest, lease time.Duration,
	claims []store.Claim,
) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if len(claims) != len(digests) {
		return fmt.Errorf("%d digests and room for %d claims", len(digests), len(claims))
	}
	d, now, mask := s.digests, s.now(), s.mask(token)
	for i := range digests {
		k := keyOf(mask, &digests[i])
		if claims[i] = d.reserve(k, uint64(owner), now, now+int64(lease)); claims[i] == 0 {
			s.metrics.full.Inc(1)
			return fmt.Errorf("%d digests are in work, which is all that store.local.memory has room for: %w",
				d.maxWork, store.ErrUnavailable)
		}
	}
	return nil
}

// reserve returns 0 if there is no room.
func (d *digests) reserve(k key, owner uint64, now, until int64) store.Claim {
	hash := d.hash(k)
	s := d.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.isDone(s, k, hash, now) {
		return store.Done
	}
	switch r, found := s.reserved[k]; {
	case found && r.owner != owner && r.until > now:
		return store.Busy
	case !found && d.inWork.Add(1) > d.maxWork:
		d.inWork.Add(-1)
		return 0
	}
	if s.reserved == nil {
		s.reserved = map[key]reservation{}
	}
	s.reserved[k] = reservation{owner, until}
	s.peak = max(s.peak, len(s.reserved))
	return store.Reserved
}

// Settle implements store.Reserver. The digests are written to the disk a moment later, by a goroutine.
func (s *Store) Settle(
	token string, owner store.Owner, commit []store.Digest, window time.Duration, release []store.Digest,
) {
	if !s.running.Load() {
		return
	}
	d, now, mask := s.digests, s.now(), s.mask(token)
	if len(commit) > 0 && window > 0 {
		g := d.generation(now, window)
		for i := range commit {
			k := keyOf(mask, &commit[i])
			d.commit(k, uint64(owner), g, now)
		}
		if s.digestLog != nil {
			s.digestLog.add(g, mask, commit)
		}
	}
	for i := range release {
		d.release(keyOf(mask, &release[i]), uint64(owner))
	}
}

// commit notes that a digest is done, whoever has reserved it meanwhile.
func (d *digests) commit(k key, owner uint64, g *generation, now int64) {
	hash := d.hash(k)
	s := d.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	d.endReservation(s, k, owner)
	d.add(s, k, hash, g, now)
}

func (d *digests) release(k key, owner uint64) {
	s := d.shard(d.hash(k))
	s.mu.Lock()
	defer s.mu.Unlock()
	d.endReservation(s, k, owner)
}

// endReservation ends a reservation of the owner. The caller has the shard's lock.
func (d *digests) endReservation(s *shard, k key, owner uint64) {
	if r, found := s.reserved[k]; found && r.owner == owner {
		delete(s.reserved, k)
		d.inWork.Add(-1)
	}
}

// mask returns what the digests of a token are masked with.
func (s *Store) mask(token string) key {
	var room [sha256.Size + maxToken]byte
	text := append(append(room[:0], s.secret[:]...), token...)
	sum := sha256.Sum256(text)
	return key{binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16])}
}
