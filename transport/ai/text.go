package ai

import (
	"slices"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/transport/decode"
)

// texts are the parts of a request with the texts that they mean.
type texts struct {
	parts []decode.Part
	// payloads hold the texts of the parts that mean another text than they are.
	payloads []*decode.Payload
}

// read finds the texts. The caller releases them, with an error as well.
func (t *texts) read(decoder *decode.Decoder, parts []decode.Part, config *configs.View) error {
	t.parts = parts
	for i, part := range parts {
		payload, err := decoder.Text(decode.Input{Body: part.Data, ContentType: part.ContentType, Config: config})
		if err != nil {
			return err
		}
		if payload == nil {
			continue
		}
		if t.payloads == nil {
			// The parts stay as they are: the answer names their lengths.
			t.parts = slices.Clone(parts)
		}
		t.parts[i].Data = payload.Bytes
		t.payloads = append(t.payloads, payload)
	}
	return nil
}

// repaired reports whether a part of a text was replaced by U+FFFD.
func (t *texts) repaired() bool {
	return slices.ContainsFunc(t.payloads, func(p *decode.Payload) bool { return p.Replaced > 0 })
}

func (t *texts) release() {
	for _, payload := range t.payloads {
		payload.Release()
	}
}
