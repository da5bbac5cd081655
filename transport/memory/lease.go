package memory

import "github.com/opencapture/capture/modules/events"

// Lease is one holder's share of a budget. The holder takes it in parts and gives it back whole. A lease belongs to one
// goroutine at a time. The budget of the zero Lease is unbounded.
type Lease struct {
	budget *Budget
	held   int64
}

// Lease returns an empty lease.
func (b *Budget) Lease() Lease { return Lease{budget: b} }

// Reserve adds n bytes to the lease and reports whether the budget had them. If not, the lease stays as it is.
func (l *Lease) Reserve(n int64) bool {
	if !l.budget.reserve(n, l.held) {
		return false
	}
	l.held += n
	return true
}

// Take is Reserve with an error: ErrSpent if the budget has no room for the bytes at present, ErrNever if the lease
// could not have them even of an unused budget.
func (l *Lease) Take(n int64) *events.Error {
	if !l.Reserve(n) {
		return l.Refusal(n)
	}
	return nil
}

// Raise enlarges the lease to n bytes, unless it has them already. It reports whether the budget had the missing bytes.
func (l *Lease) Raise(n int64) bool { return n <= l.held || l.Reserve(n-l.held) }

// RaiseBeside is Raise for what a request holds beside its text, with an error: ErrSpent, or ErrNever if n is more than
// half of the budget, because the text takes the other half.
func (l *Lease) RaiseBeside(n int64) *events.Error {
	if !l.Raise(n) {
		return l.Refusal(2*n - l.held)
	}
	return nil
}

// Refusal returns the error of a lease that could not have n bytes more: ErrSpent, or ErrNever if it could not have
// them even of an unused budget.
func (l *Lease) Refusal(n int64) *events.Error { return l.budget.refusal(l.held + n) }

// Held returns how many bytes the lease has.
func (l *Lease) Held() int64 { return l.held }

// Release gives all bytes of the lease back. The lease is then empty and can be used anew; releasing an empty lease
// does nothing.
func (l *Lease) Release() {
	l.budget.release(l.held, l.held)
	l.held = 0
}

// Lower gives back what the lease has beyond n bytes.
func (l *Lease) Lower(n int64) {
	if n < l.held {
		l.budget.release(l.held-n, l.held)
		l.held = n
	}
}
