package crossing

import (
	"encoding/json"
	"testing"
	"time"

	"enisle/internal/site/trust"
)

// FuzzReceipt reads what somebody brought out of an island: files and typed codes.
func FuzzReceipt(f *testing.F) {
	k, err := trust.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	payload, err := json.Marshal(Receipt{Format: receiptFormat, Made: time.Unix(1_800_000_000, 0).UTC()})
	if err != nil {
		f.Fatal(err)
	}
	env, err := trust.Sign(ReceiptType, payload, k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Add([]byte("AEAA-AAAC-AABT-4EBN-XD3A"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeReceipt(b); err == nil && r.Format != receiptFormat {
			t.Errorf("accepted %+v", r)
		}
		if code, err := decodeCode(string(b)); err == nil && len(code) != codeBytes {
			t.Errorf("accepted a code of %d bytes", len(code))
		}
	})
}
