package configs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Secret is a string that masks itself: printed, logged or marshalled it reads "******". Reveal returns the value.
type Secret string

const masked = "******"

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString keeps %#v from showing the value.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText keeps every encoder from showing the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Command is a program and its arguments. Where the configuration is printed, the arguments are masked: people put
// secrets there.
type Command []string

// ByteSize is a number of bytes, written as a plain number or with a unit: B, KB, MB, GB (powers of 1000) or KiB, MiB,
// GiB (powers of 1024), as in "20MiB". Units are not case-sensitive.
type ByteSize int64

// Powers of 1024.
const (
	KiB ByteSize = 1 << 10
	MiB ByteSize = 1 << 20
	GiB ByteSize = 1 << 30
)

var byteUnits = []struct {
	suffix string
	size   int64
}{
	{"kib", 1 << 10},
	{"mib", 1 << 20},
	{"gib", 1 << 30},
	{"tib", 1 << 40},
	{"kb", 1e3},
	{"mb", 1e6},
	{"gb", 1e9},
	{"tb", 1e12},
	{"b", 1},
}

// String writes the size in the largest unit that gives a whole number.
func (b ByteSize) String() string {
	for _, unit := range []struct {
		suffix string
		size   ByteSize
	}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}} {
		if b != 0 && b%unit.size == 0 {
			return strconv.FormatInt(int64(b/unit.size), 10) + unit.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Approx writes the size for people, with at most one digit behind the point: 1.2GiB, 300KiB, 17B. It is the form for
// measured sizes, such as how much of a disk is in use. Configured sizes are shown by String.
func (b ByteSize) Approx() string {
	for _, unit := range []struct {
		suffix string
		size   ByteSize
	}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}} {
		if b >= unit.size {
			return strings.TrimSuffix(strconv.FormatFloat(float64(b)/float64(unit.size), 'f', 1, 64),
				".0") + unit.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalText writes what UnmarshalText reads.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a size. A fraction is allowed if it gives whole bytes.
func (b *ByteSize) UnmarshalText(text []byte) error {
	s := strings.ToLower(strings.TrimSpace(string(text)))
	size := int64(1)
	for _, unit := range byteUnits {
		if rest, ok := strings.CutSuffix(s, unit.suffix); ok {
			s, size = strings.TrimSpace(rest), unit.size
			break
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > math.MaxInt64/size || n < math.MinInt64/size {
			return fmt.Errorf("%q is too large", text)
		}
		*b = ByteSize(n * size)
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	product := f * float64(size)
	whole := math.Round(product)
	// 1.005KB is a whole number of bytes, although the product of the binary fractions is not.
	exact := math.Abs(product-whole) <= math.Abs(whole)*1e-12
	if err != nil || !exact || math.Abs(whole) >= math.MaxInt64 {
		return fmt.Errorf("%q is not a size: write a number of bytes or a unit, such as 512KiB or 20MiB", text)
	}
	*b = ByteSize(whole)
	return nil
}
