package memory

// Lease is what one holder has of a budget. It is taken in parts and given back whole. A lease belongs to one goroutine
// at a time; the zero Lease is of a budget without bounds.
type Lease struct {
	budget *Budget
	held   int64
}

// Lease returns an empty lease.
func (b *Budget) Lease() Lease { return Lease{budget: b} }

// Reserve adds n bytes to the lease and reports whether they were there; if not, the lease stays as it is.
func (l *Lease) Reserve(n int64) bool {
	if !l.budget.reserve(n) {
		return false
	}
	l.held += n
	return true
}

// Raise makes the lease one of n bytes, unless it has more already. It reports whether the bytes were there.
func (l *Lease) Raise(n int64) bool { return n <= l.held || l.Reserve(n-l.held) }

// Held returns how many bytes the lease has.
func (l *Lease) Held() int64 { return l.held }

// Release gives everything back. The lease is empty then: releasing it again does nothing, and it can be used anew.
func (l *Lease) Release() {
	l.budget.release(l.held)
	l.held = 0
}
