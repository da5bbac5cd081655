package posthog

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/opencapture/capture/modules/events"
)

// noon is the service's clock in tests of times.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// The forms are those of section 2.11 of the protocol, those that the parser of PostHog's own service lists (the crate
// dateparser), and those that languages and devices write.
func TestParseTimeReadsEveryForm(t *testing.T) {
	for text, want := range map[string]string{
		"2026-11-23T19:52:25Z":                             "2026-11-23T19:52:25Z",
		"2026-11-23T19:52:25.857975+00:00":                 "2026-11-23T19:52:25.857975Z",
		"2026-11-23T19:52:25.123456789Z":                   "2026-11-23T19:52:25.123456789Z",
		"2026-11-23T19:52:25.1234567891234Z":               "2026-11-23T19:52:25.123456789Z",
		"2026-11-29T10:00:00.1234567Z":                     "2026-11-29T10:00:00.1234567Z",
		"2026-11-23T19:52:25+05:30":                        "2026-11-23T14:22:25Z",
		"2026-11-23T19:52:25-03":                           "2026-11-23T22:52:25Z",
		"2026-11-23T19:52:25.5+03":                         "2026-11-23T16:52:25.5Z",
		"2026-11-23T19:52:25+0300":                         "2026-11-23T16:52:25Z",
		"2026-11-23T19:52:25":                              "2026-11-23T19:52:25Z",
		"2026-11-23T19:52:25.25":                           "2026-11-23T19:52:25.25Z",
		"2026-11-23T19:52":                                 "2026-11-23T19:52:00Z",
		"2026-11-23T19:52Z":                                "2026-11-23T19:52:00Z",
		"2026-11-23 19:52:25":                              "2026-11-23T19:52:25Z",
		"2026-11-23 19:52:25.857975+00:00":                 "2026-11-23T19:52:25.857975Z",
		"2026-11-23":                                       "2026-11-23T00:00:00Z",
		"2026/11/23":                                       "2026-11-23T00:00:00Z",
		"11/23/2026":                                       "2026-11-23T00:00:00Z",
		"2026/11/23 10:00:00":                              "2026-11-23T10:00:00Z",
		"Mon, 23 Nov 2026 19:52:25 +0100":                  "2026-11-23T18:52:25Z",
		"Mon, 23 Nov 2026 19:52:25 GMT":                    "2026-11-23T19:52:25Z",
		"1795463545":                                       "2026-11-23T19:52:25Z",
		"1795463545.5":                                     "2026-11-23T19:52:25.5Z",
		"1795463545123":                                    "2026-11-23T19:52:25.123Z",
		"99999999999":                                      "5138-11-16T09:46:39Z",
		"100000000000":                                     "1973-03-03T09:46:40Z",
		"99999999999999":                                   "5138-11-16T09:46:39.999Z",
		"100000000000000":                                  "1973-03-03T09:46:40Z",
		"99999999999999000":                                "5138-11-16T09:46:39.999Z",
		"100000000000000000":                               "1973-03-03T09:46:40Z",
		"6:00pm +1400":                                     "2026-11-25T04:00:00Z", // where the 25th has begun
		"20261123T195225Z":                                 "2026-11-23T19:52:25Z",
		"20261123T195225.123+0100":                         "2026-11-23T18:52:25.123Z",
		"20261123 19:52:25":                                "2026-11-23T19:52:25Z",
		"2026-11-23T19:52:25+05:30[Asia/Kolkata]":          "2026-11-23T14:22:25Z",
		"2026-11-23T19:52:25.123Z[UTC]":                    "2026-11-23T19:52:25.123Z",
		"2026-11-23T19:52:25+01:00[Europe/Berlin][u-ca=x]": "2026-11-23T18:52:25Z",
		"2024-02-29T00:00:00Z":                             "2024-02-29T00:00:00Z",
		" 2026-11-23T19:52:25Z ":                           "2026-11-23T19:52:25Z",
		"Fri, 20 Nov 2026 10:00:00 EST":                    "2026-11-20T15:00:00Z",
		"20 Nov 2026 10:00:00 GMT":                         "2026-11-20T10:00:00Z",
		"20 Nov 2026 10:00 +0200":                          "2026-11-20T08:00:00Z",
		"2026-11-20t10:00:00z":                             "2026-11-20T10:00:00Z",
		"2026-11-20T10:00:60Z":                             "2026-11-20T10:01:00Z",
		"2026-11-20 10:00:00 UTC":                          "2026-11-20T10:00:00Z",

		// The list of the crate dateparser, in its order.
		"1511648546":                          "2017-11-25T22:22:26Z",
		"1620021848429":                       "2021-05-03T06:04:08.429Z",
		"1620024872717915000":                 "2021-05-03T06:54:32.717915Z",
		"2021-05-01T01:17:02.604456Z":         "2021-05-01T01:17:02.604456Z",
		"2017-11-25T22:34:50Z":                "2017-11-25T22:34:50Z",
		"Wed, 02 Jun 2021 06:31:39 GMT":       "2021-06-02T06:31:39Z",
		"Wed, 02 Jun 2021 06:31:39 PDT":       "2021-06-02T13:31:39Z",
		"2019-11-29 08:08-08":                 "2019-11-29T16:08:00Z",
		"2019-11-29 08:08:05-08":              "2019-11-29T16:08:05Z",
		"2021-05-02 23:31:36.0741-07":         "2021-05-03T06:31:36.0741Z",
		"2021-05-02 23:31:39.12689-07":        "2021-05-03T06:31:39.12689Z",
		"2019-11-29 08:15:47.624504-08":       "2019-11-29T16:15:47.624504Z",
		"2017-07-19 03:21:51+00:00":           "2017-07-19T03:21:51Z",
		"2014-04-26 05:24:37 PM":              "2014-04-26T17:24:37Z",
		"2021-04-30 21:14":                    "2021-04-30T21:14:00Z",
		"2021-04-30 21:14:10":                 "2021-04-30T21:14:10Z",
		"2021-04-30 21:14:10.052282":          "2021-04-30T21:14:10.052282Z",
		"2014-04-26 17:24:37.123":             "2014-04-26T17:24:37.123Z",
		"2014-04-26 17:24:37.3186369":         "2014-04-26T17:24:37.3186369Z",
		"2012-08-03 18:31:59.257000000":       "2012-08-03T18:31:59.257Z",
		"2017-11-25 13:31:15 PST":             "2017-11-25T21:31:15Z",
		"2017-11-25 13:31 PST":                "2017-11-25T21:31:00Z",
		"2014-12-16 06:20:00 UTC":             "2014-12-16T06:20:00Z",
		"2014-12-16 06:20:00 GMT":             "2014-12-16T06:20:00Z",
		"2014-04-26 13:13:43 +0800":           "2014-04-26T05:13:43Z",
		"2014-04-26 13:13:44 +09:00":          "2014-04-26T04:13:44Z",
		"2012-08-03 18:31:59.257000000 +0000": "2012-08-03T18:31:59.257Z",
		"2015-09-30 18:48:56.35272715 UTC":    "2015-09-30T18:48:56.35272715Z",
		"2021-02-21":                          "2021-02-21T00:00:00Z",
		"2021-02-21 PST":                      "2021-02-21T08:00:00Z",
		"2021-02-21 UTC":                      "2021-02-21T00:00:00Z",
		"2020-07-20+08:00":                    "2020-07-19T16:00:00Z",
		"01:06:06":                            "2026-11-24T01:06:06Z",
		"4:00pm":                              "2026-11-24T16:00:00Z",
		"6:00 AM":                             "2026-11-24T06:00:00Z",
		"01:06:06 PST":                        "2026-11-24T09:06:06Z",
		"4:00pm PST":                          "2026-11-25T00:00:00Z",
		"6:00 AM PST":                         "2026-11-24T14:00:00Z",
		"6:00pm UTC":                          "2026-11-24T18:00:00Z",
		"May 6 at 9:24 PM":                    "2026-05-06T21:24:00Z",
		"May 27 02:45:27":                     "2026-05-27T02:45:27Z",
		"May 8, 2009 5:57:51 PM":              "2009-05-08T17:57:51Z",
		"September 17, 2012 10:09am":          "2012-09-17T10:09:00Z",
		"September 17, 2012, 10:10:09":        "2012-09-17T10:10:09Z",
		"May 02, 2021 15:51:31 UTC":           "2021-05-02T15:51:31Z",
		"May 02, 2021 15:51 UTC":              "2021-05-02T15:51:00Z",
		"May 26, 2021, 12:49 AM PDT":          "2021-05-26T07:49:00Z",
		"September 17, 2012 at 10:09am PST":   "2012-09-17T18:09:00Z",
		"2021-Feb-21":                         "2021-02-21T00:00:00Z",
		"May 25, 2021":                        "2021-05-25T00:00:00Z",
		"oct 7, 1970":                         "1970-10-07T00:00:00Z",
		"oct 7, 70":                           "1970-10-07T00:00:00Z",
		"oct. 7, 1970":                        "1970-10-07T00:00:00Z",
		"oct. 7, 70":                          "1970-10-07T00:00:00Z",
		"October 7, 1970":                     "1970-10-07T00:00:00Z",
		"12-Feb-2006, 19:17":                  "2006-02-12T19:17:00Z",
		"12-Feb-2006 19:17":                   "2006-02-12T19:17:00Z",
		"14-October-2019 19:11:40.164":        "2019-10-14T19:11:40.164Z",
		"12-Feb-2006":                         "2006-02-12T00:00:00Z",
		"14-October-2019":                     "2019-10-14T00:00:00Z",
		"12 Feb 2006, 19:17":                  "2006-02-12T19:17:00Z",
		"12 Feb 2006 19:17":                   "2006-02-12T19:17:00Z",
		"14 May 2019 19:11:40.164":            "2019-05-14T19:11:40.164Z",
		"7 oct 70":                            "1970-10-07T00:00:00Z",
		"7 oct 1970":                          "1970-10-07T00:00:00Z",
		"03 February 2013":                    "2013-02-03T00:00:00Z",
		"1 July 2013":                         "2013-07-01T00:00:00Z",
		"4/8/2014 22:05":                      "2014-04-08T22:05:00Z",
		"04/08/2014 22:05":                    "2014-04-08T22:05:00Z",
		"4/8/14 22:05":                        "2014-04-08T22:05:00Z",
		"04/2/2014 03:00:51":                  "2014-04-02T03:00:51Z",
		"8/8/1965 12:00:00 AM":                "1965-08-08T00:00:00Z",
		"8/8/1965 01:00:01 PM":                "1965-08-08T13:00:01Z",
		"8/8/2024 01:00:01 PM":                "2024-08-08T13:00:01Z",
		"8/8/1965 01:00 PM":                   "1965-08-08T13:00:00Z",
		"8/8/1965 1:00 PM":                    "1965-08-08T13:00:00Z",
		"8/8/1965 12:00 AM":                   "1965-08-08T00:00:00Z",
		"4/02/2014 03:00:51":                  "2014-04-02T03:00:51Z",
		"03/19/2012 10:11:59":                 "2012-03-19T10:11:59Z",
		"03/19/2012 10:11:59.3186369":         "2012-03-19T10:11:59.3186369Z",
		"3/31/2014":                           "2014-03-31T00:00:00Z",
		"3/31/2014 22:05":                     "2014-03-31T22:05:00Z",
		"03/31/2014":                          "2014-03-31T00:00:00Z",
		"08/21/71":                            "1971-08-21T00:00:00Z",
		"8/1/71":                              "1971-08-01T00:00:00Z",
		"2014/4/8 22:05":                      "2014-04-08T22:05:00Z",
		"2014/04/08 22:05":                    "2014-04-08T22:05:00Z",
		"2014/04/2 03:00:51":                  "2014-04-02T03:00:51Z",
		"2014/4/02 03:00:51":                  "2014-04-02T03:00:51Z",
		"2012/03/19 10:11:59":                 "2012-03-19T10:11:59Z",
		"2012/03/19 10:11:59.3186369":         "2012-03-19T10:11:59.3186369Z",
		"2014/3/31":                           "2014-03-31T00:00:00Z",
		"2014/03/31":                          "2014-03-31T00:00:00Z",
		"3.31.2014":                           "2014-03-31T00:00:00Z",
		"03.31.2014":                          "2014-03-31T00:00:00Z",
		"08.21.71":                            "1971-08-21T00:00:00Z",
		"2014.03.30":                          "2014-03-30T00:00:00Z",
		"2014.03":                             "2014-03-24T00:00:00Z",
		"171113 14:14:20":                     "2017-11-13T14:14:20Z",
		"2014年04月08日11时25分18秒":                "2014-04-08T11:25:18Z",
		"2014年04月08日":                         "2014-04-08T00:00:00Z",

		// Numbers.
		"0":                    "1970-01-01T00:00:00Z",
		"-770172300":           "1945-08-05T23:15:00Z",
		"-1.5":                 "1969-12-31T23:59:58.5Z",
		"1671673426.123456789": "2022-12-22T01:43:46.123456789Z",
		"1.7636e12":            "2025-11-20T00:53:20Z",
		"1.7636E+9":            "2025-11-20T00:53:20Z",
		"1763600000000.5":      "2025-11-20T00:53:20Z",
		"1763600000000000":     "2025-11-20T00:53:20Z",
		"1763600000000000001":  "2025-11-20T00:53:20.000000001Z",
		"20141216":             "2014-12-16T00:00:00Z",

		// What languages print.
		"Mon Nov 23 2026 19:52:25 GMT+0100 (Central European Standard Time)": "2026-11-23T18:52:25Z",
		"Mon Nov 23 19:52:25 2026":                                         "2026-11-23T19:52:25Z",
		"Mon Nov  2 19:52:25 UTC 2026":                                     "2026-11-02T19:52:25Z",
		"Monday, 23-Nov-2026 19:52:25 UTC":                                 "2026-11-23T19:52:25Z",
		"Monday, November 23, 2026 7:52:25 PM":                             "2026-11-23T19:52:25Z",
		"2026-11-23 19:52:25.857975 +0000 UTC m=+0.00012":                  "2026-11-23T19:52:25.857975Z",
		"2026-11-23 19:52:25 +0100 CET":                                    "2026-11-23T18:52:25Z",
		"11/23/2026 7:52:25 PM":                                            "2026-11-23T19:52:25Z",
		"11/23/2026, 7:52:25\u202fPM":                                      "2026-11-23T19:52:25Z",
		strings.Join(strings.Split("11/23/2026 7:52:25 PM", ""), "\u200e"): "2026-11-23T19:52:25Z",
		"2026-11-23T19:52:25,5Z":                                           "2026-11-23T19:52:25.5Z",
		"2026-11-23 19:52:25 GMT+2":                                        "2026-11-23T17:52:25Z",
		"2026-11-23 19:52:25 UTC+5:30":                                     "2026-11-23T14:22:25Z",
		"2026-11-23 19:52:25 CEST":                                         "2026-11-23T17:52:25Z",

		// Devices that are set to a 12-hour clock, and to digits of another script.
		"2026-11-20T3:33:07 PMZ":       "2026-11-20T15:33:07Z",
		"2026-11-20T3:33:07PMZ":        "2026-11-20T15:33:07Z",
		"2026-11-20T12:33:07 a.m.Z":    "2026-11-20T00:33:07Z",
		"2026-11-20T3:33:07 p. m.Z":    "2026-11-20T15:33:07Z",
		"2026-11-20T3:33:07.250 pm+01": "2026-11-20T14:33:07.25Z",
		"2026-11-20T15:33:07 PMZ":      "2026-11-20T15:33:07Z",
		"٢٠٢٦-١١-٢٠T١٥:٣٣:٠٧Z":         "2026-11-20T15:33:07Z",
		"۲۰۲۶-۱۱-۲۰T۱۵:۳۳:۰۷.۲۵Z":      "2026-11-20T15:33:07.25Z",
		"२०२६-११-२०T१५:३३:०७Z":         "2026-11-20T15:33:07Z",
		"２０２６－１１－２０　１５：３３：０７":          "2026-11-20T15:33:07Z",
		"𝟚𝟘𝟚𝟞-11-20":                   "2026-11-20T00:00:00Z",
	} {
		got, ok := parseTime(text, noon)
		if want == "" {
			require.False(t, ok, "%q: %v", text, got)
			continue
		}
		require.True(t, ok, text)
		require.Equal(t, want, got.Format(time.RFC3339Nano), text)
		require.Equal(t, time.UTC, got.Location(), text)
	}
}

// A wrong time is worse than none: what can be meant in two ways, or holds more than a time, is not read.
func TestWhatIsNoTimeIsNotReadAsOne(t *testing.T) {
	for _, text := range []string{"", " ", "yesterday", "now", "music, coding, artd", "2026-13-01T00:00:00Z",
		"2026-02-29T00:00:00Z", "2026-02-30", "2/30/2026", "Feb 29 10:00", "2026-11-23T24:00:00Z", "24:00", "NaN",
		"Infinity", "0x1p10", "1_000", "1e400", "1e25", "2026-11-23T19:52:25.Z", "Fri, 20 Nov 2026 10:00:00 XYZ",
		"2026-11-23 19:52:25 IST", "31/3/2014", "13.13.2014", "2026-11-23 and more", "2026-11-23 2026-11-24",
		"10:00 11:00", "2026-11-23T0:33:07 PM", "2026-11-23T15:33:07 AM", "AM", "May", "May 27", "12:00 May", "Z",
		"+01:00",
		"2026-11-23 19:52:25 +0100 +0200", "2026-11-23 19:52:25 UTC GMT", "2026-11-23 19:52:25 PST+1", "GMT+25",
		"2026-11-23 19:52:25 +2500", "2026-11-23 19:52:25 +0160", "2026-11-23 19:52:25 +", "2026-11-23 (now)",
		"2026-11-23 19:52:25 +0000 UTC and more", "2026-11-23 19:52:25 +0000 (", "2569年", "令和8年11月20日", "١٤٠٥",
		"2026-11-20T10:00:00\x00Z", "2026-11-20\xff", "2026-", "-2026-11-20", "2026--11-20", "Feb-Feb-2006", "12--2006",
		strings.Repeat("1", maxTime), strings.Repeat(" ", maxTime) + "2026-11-20", "a", "p", "a.", "p. ", "m=", "(",
		")",
		"2026-11-20 #", "12 Feb 2006 7 8", "2026-11-23T19:52:25[Europe/Berlin]", "2026-11-23T19:52:25+01:00[Europe",
		"20261123T256199Z", "20261123T19522Z", "20261123T1952.5Z", "20261123T1952", "20261123T195225 195225",
		"20261123 2026",
	} {
		got, ok := parseTime(text, noon)
		if text == "١٤٠٥" {
			// Four digits are a number of seconds, in any script; the event is told to be too old.
			require.True(t, ok)
			require.Equal(t, 1970, got.Year())
			continue
		}
		require.False(t, ok, "%q: %v", text, got)
	}
}

func TestADayThatAMonthDoesNotHaveIsItsLast(t *testing.T) {
	got, ok := parseTime("2014.02", time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))
	require.True(t, ok)
	require.Equal(t, "2014-02-28T00:00:00Z", got.Format(time.RFC3339))
}

// FuzzParseTime compares the parser with the library: what the library takes for a time is the same time here, and
// every time is in UTC. Spaces around a text change nothing.
func FuzzParseTime(f *testing.F) {
	for _, seed := range []string{
		"2026-11-23T19:52:25.857975+00:00", "2026-02-30T19:52:25Z", "2026-11-23T19:52:60-23:59",
		"Mon, 23 Nov 2026 19:52:25 GMT", "1795463545.5", "May 26, 2021, 12:49 AM PDT", "3/31/2014 22:05", "2014.03",
		"2014年04月08日11时25分18秒", "٢٠٢٦-١١-٢٠T٣:٣٣:٠٧ PMZ", "Mon Nov 23 2026 19:52:25 GMT+0100 (CET)",
		"14-October-2019 19:11:40.164", "p. m. 1:1", "-1e18",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseTime(text, noon)
		if ok && got.Location() != time.UTC {
			t.Fatalf("parseTime(%q) = %v", text, got)
		}
		if want, err := time.Parse(time.RFC3339Nano, text); err == nil && len(text) <= maxTime &&
			(!ok || !want.Equal(got)) {
			t.Fatalf("parseTime(%q) = %v %t, want %v", text, got, ok, want)
		}
		if len(text)+2 <= maxTime && text != "" {
			if again, spaced := parseTime(" "+text+" ", noon); spaced != ok || !again.Equal(got) {
				t.Fatalf("parseTime(%q) = %v %t, with spaces %v %t", text, got, ok, again, spaced)
			}
		}
	})
}

// Section 2.11 of the protocol, and section 0 for retries.
func TestEventTimeFollowsTheRules(t *testing.T) {
	now := noon
	sent := now.Add(-time.Hour) // the client's clock is an hour slow
	at := sent.Add(-time.Minute)
	first := sent.Add(-10 * time.Minute) // the client's clock at the first attempt
	known := func(at time.Time) Stamp { return Stamp{At: at, Known: true} }
	offset := func(ms int64) Stamp { return Stamp{At: at, Known: true, offset: ms, hasOffset: true} }
	ignore := func(stamp Stamp) Stamp {
		stamp.IgnoreSentAt = true
		return stamp
	}
	for _, test := range []struct {
		name  string
		clock Clock
		stamp Stamp
		want  time.Time
		notes events.Notes
	}{
		{name: "skew is corrected", clock: Clock{Now: now, SentAt: sent}, stamp: known(at),
			want: now.Add(-time.Minute)},
		{name: "without sent_at the timestamp stands", clock: Clock{Now: now}, stamp: known(at), want: at},
		{name: "$ignore_sent_at", clock: Clock{Now: now, SentAt: sent}, stamp: ignore(known(at)), want: at},
		{name: "nothing: now", clock: Clock{Now: now, SentAt: sent}, want: now},
		{name: "offset overrides", clock: Clock{Now: now, SentAt: sent}, stamp: offset(1000),
			want: now.Add(-time.Second)},
		{name: "a retry with the sent_at of the first attempt: no correction",
			clock: Clock{Now: now, FirstSentAt: first}, stamp: known(at), want: at},
		{name: "a retry with a sent_at of its own", clock: Clock{Now: now, SentAt: sent, FirstSentAt: first},
			stamp: known(at), want: now.Add(-time.Minute)},
		{name: "a retry: the offset counts from the first attempt", clock: Clock{Now: now, FirstSentAt: first},
			stamp: offset(1000), want: first.Add(-time.Second)},
		{name: "a retry with both: the offset counts from the first attempt, by the service's clock",
			clock: Clock{Now: now, SentAt: sent, FirstSentAt: first}, stamp: offset(1000),
			want: now.Add(-10*time.Minute - time.Second)},
		{name: "a first attempt after this one is none", clock: Clock{Now: now, SentAt: first, FirstSentAt: sent},
			stamp: offset(1000), want: now.Add(-time.Second)},
		{name: "a retry that ignores sent_at", clock: Clock{Now: now, SentAt: sent, FirstSentAt: first},
			stamp: ignore(offset(1000)), want: now.Add(-time.Second)},
		{name: "offset of centuries", clock: Clock{Now: now}, stamp: offset(1000 * 365 * 24 * 3_600_000),
			want: now.AddDate(0, 0, -365_000), notes: events.NoteTimeOld},
		{name: "offset to before year 0: epoch", clock: Clock{Now: now}, stamp: offset(maxMilliseconds),
			want: time.Unix(0, 0).UTC(), notes: events.NoteTimeOutOfRange},
		{name: "offset ahead: now", clock: Clock{Now: now}, stamp: offset(-maxMilliseconds), want: now,
			notes: events.NoteTimeAhead},
		{name: "skew of centuries, as of a Buddhist calendar", clock: Clock{Now: now, SentAt: now.AddDate(543, 0, 0)},
			stamp: known(now.AddDate(543, 0, -1)), want: now.AddDate(0, 0, -1)},
		{name: "a Buddhist calendar without sent_at: now", clock: Clock{Now: now}, stamp: known(now.AddDate(543, 0, 0)),
			want: now, notes: events.NoteTimeAhead},
		{name: "too far ahead: now", clock: Clock{Now: now}, stamp: known(now.Add(23*time.Hour + 1)), want: now,
			notes: events.NoteTimeAhead},
		{name: "just not too far ahead", clock: Clock{Now: now}, stamp: known(now.Add(23 * time.Hour)),
			want: now.Add(23 * time.Hour)},
		{name: "before year 0: epoch", clock: Clock{Now: now}, stamp: known(time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)),
			want: time.Unix(0, 0).UTC(), notes: events.NoteTimeOutOfRange},
		{name: "a Persian calendar: kept and noted", clock: Clock{Now: now},
			stamp: known(time.Date(1405, 9, 3, 0, 0, 0, 0, time.UTC)),
			want:  time.Date(1405, 9, 3, 0, 0, 0, 0, time.UTC), notes: events.NoteTimeOld},
		{name: "the zero time of Go and .NET: kept and noted", clock: Clock{Now: now}, stamp: known(time.Time{}),
			want: time.Time{}, notes: events.NoteTimeOld},
		{name: "the last moment of 1970 is noted", clock: Clock{Now: now},
			stamp: known(time.Date(1970, 12, 31, 23, 59, 59, 0, time.UTC)),
			want:  time.Date(1970, 12, 31, 23, 59, 59, 0, time.UTC), notes: events.NoteTimeOld},
		{name: "the first moment of 1971 is not", clock: Clock{Now: now},
			stamp: known(time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)),
			want:  time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)},
		{name: "a timestamp that cannot be read", clock: Clock{Now: now, SentAt: sent}, stamp: Stamp{Unread: true},
			want: now, notes: events.NoteTimeUnread},
		{name: "a sent_at that cannot be read", clock: Clock{Now: now, Unread: true}, stamp: known(at), want: at,
			notes: events.NoteSentAtUnread},
		{name: "a sent_at that cannot be read and is not wanted", clock: Clock{Now: now, Unread: true},
			stamp: ignore(known(at)), want: at},
		{name: "an offset makes up for a timestamp that cannot be read", clock: Clock{Now: now},
			stamp: Stamp{Unread: true, offset: 1000, hasOffset: true}, want: now.Add(-time.Second)},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, notes := test.clock.eventTime(test.stamp)
			require.Equal(t, test.want, got)
			require.Equal(t, test.notes, notes)
		})
	}
}

// Upstream refuses numbers. Here a number means what the same digits mean in a text.
func TestANumberIsReadAsTheSameDigitsInAText(t *testing.T) {
	for _, number := range []string{"1763600000", "1763600000000", "1763600000.25", "1.7636e12", "1.7636E+9", "0",
		"-1.5",
		"1763600000000000000", "2014.03", "20141216", "1e400", "-0", strings.Repeat("9", maxTime+1)} {
		bare, text := ReadStamp([]byte(number), noon), ReadStamp([]byte(`"`+number+`"`), noon)
		require.Equal(t, text, bare, number)
		require.NotEqual(t, bare.Known, bare.Unread, number)
	}
	require.Equal(t, Stamp{At: time.Date(2025, 11, 20, 0, 53, 20, 0, time.UTC), Known: true},
		ReadStamp([]byte("1763600000000"), noon))
	for _, other := range []string{"true", "[]", "{}", "[1763600000]", `""`, `"yesterday"`} {
		require.Equal(t, Stamp{Unread: true}, ReadStamp([]byte(other), noon), other)
	}
	require.Zero(t, ReadStamp(nil, noon), "nothing sent")
}

func TestTheZeroTimeIsNoTimeOfSending(t *testing.T) {
	for raw, unread := range map[string]bool{
		`"0001-01-01T00:00:00Z"`: true, `"soon"`: true, "true": true, "[]": true, "1763600000": false,
		`"2026-11-24T12:00:00Z"`: false, `"2569-11-24T12:00:00Z"`: false,
		"0": true, `"0"`: true, "-0": true, "0.0": true, `"1970-01-01T00:00:00.000Z"`: true,
		// A clock that begins with 1970 has moved on, and the events are as far back.
		"1000": false, `"1970-01-01T00:05:00Z"`: false,
	} {
		sentAt, bad := ReadSentAt([]byte(raw), noon)
		require.Equal(t, unread, bad, raw)
		require.Equal(t, unread, sentAt.IsZero(), raw)
	}
	sentAt, unread := ReadSentAt(nil, noon)
	require.True(t, sentAt.IsZero())
	require.False(t, unread, "nothing sent")
}
