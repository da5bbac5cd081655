package jsonscan

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestADepthCountsTheObjectWhoseMembersAreRead(t *testing.T) {
	deep := func(n int) []byte {
		return []byte(`{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`)
	}
	require.NotNil(t, Get(deep(MaxDepth-1), "a"))
	require.Nil(t, Get(deep(MaxDepth), "a"))
}

func TestAppendingToAMembersValueDoesNotWriteIntoTheText(t *testing.T) {
	text := []byte(`{"a":1,"b":2}`)
	_ = append(Get(text, "a"), "xxxx"...)
	require.Equal(t, `{"a":1,"b":2}`, string(text))
}

func TestANameThatIsNoUTF8BecomesOneThatIs(t *testing.T) {
	text, err := AppendSet(nil, []byte(`{}`), "a\xff", []byte("1"))
	require.NoError(t, err)
	require.JSONEq(t, `{"a\ufffd":1}`, string(text))
}

func TestTwoLowSurrogatesAreNoPair(t *testing.T) {
	text := []byte(`"\udc00\udc00"`)
	require.False(t, Valid(text))
	mended, done := Repair(text)
	require.Equal(t, `"\ufffd\ufffd"`, string(mended))
	require.Equal(t, Repairs{Surrogates: 2}, done)
}

func TestATextThatEndsInTheMiddleOfAnEscapeIsRepairedAsFarAsItGoes(t *testing.T) {
	text := []byte(`[NaN,"\`)
	mended, _ := Repair(text[:len(text):len(text)])
	require.Equal(t, `[null,"\`, string(mended))
}

func TestAnArrayWhereAnObjectWasIsAnArray(t *testing.T) {
	require.True(t, Valid([]byte(`[{"a":1},[1,2],{"b":[3,4]}]`)))
}

func TestAControlCharacterInALongStringIsRefused(t *testing.T) {
	for at := range 20 {
		text := []byte(`"` + strings.Repeat("a", 30) + `"`)
		require.True(t, Valid(text))
		text[1+at] = 1
		require.False(t, Valid(text), at)
	}
}
