package proof

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnswersAreAlikeWhenNoOtherHasComeForAWhile(t *testing.T) {
	for _, test := range []struct {
		name        string
		statuses    []int // one every half second; -1: none
		safe, alike bool
	}{
		{"nothing was heard", nil, false, false},
		{"all are safe", []int{200, 200, 200, 200, 200}, true, true},
		{"all are refused", []int{503, 503, 503, 503, 503}, false, true},
		{"not for long enough", []int{503, 200, 200, 200, 200}, false, false},
		{"a mixture", []int{503, 200, 503, 200, 503}, false, false},
		{"one was not answered", []int{200, 200, 0, 200, 200}, false, false},
		{"none was answered", []int{0, 0, 0, 0, 0}, false, false},
		{"another error", []int{500, 500, 500, 500, 500}, false, false},
		{"a change long ago", []int{503, 200, 200, 200, 200, 200}, true, true},
		{"none of late", []int{200, 200, 200, 200, 200, 200, 200, -1, -1, -1}, false, false},
		{"none for a while in between", []int{200, 200, 200, -1, -1, 200, 200}, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var answers Answers
			now := time.Unix(1000, 0)
			for _, status := range test.statuses {
				now = now.Add(500 * time.Millisecond)
				if status >= 0 {
					answers.Add(status, now)
				}
			}
			safe, alike := answers.Uniform(now, 2*time.Second)
			require.Equal(t, test.alike, alike)
			require.Equal(t, test.safe, safe && alike)
		})
	}
}
