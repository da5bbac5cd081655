package posthog

import (
	"errors"

	"github.com/opencapture/capture/modules/events"
	"github.com/opencapture/capture/modules/jsonscan"
	"github.com/opencapture/capture/transport/decode"
	"github.com/opencapture/capture/transport/memory"
)

// Read has the text scanned and mended as Mend does. Some clients send the batch as a JSON string that holds the array.
// Read then has the text scanned anew, with the array in the place of the string. at is where scan leaves the batch's
// place.
func (m *Metrics) Read(
	payload *decode.Payload, scan func([]byte) *jsonscan.SyntaxError, scanner *jsonscan.Scanner, at *jsonscan.Span,
	batch *events.Batch, lease *memory.Lease,
) (*jsonscan.SyntaxError, *events.Error) {
	for {
		fault, err := m.Mend(payload, scan, scanner, batch, lease)
		if err != nil || fault != nil || !decode.IsQuotedArray(at.In(scanner.Data)) {
			return fault, err
		}
		if err := payload.Unquote(scanner.Data, int(at.From), int(at.To)); err != nil {
			var coded *events.Error
			errors.As(err, &coded) // every error of the decoder is one
			return nil, coded
		}
	}
}
