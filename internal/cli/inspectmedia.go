package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/app"
)

func (e *env) inspectMedia() *cobra.Command {
	return &cobra.Command{
		Use: "inspect-media DIR…", Short: "Say who sealed a shipment, for whom and how large, without importing", Args: cobra.MinimumNArgs(1),
		Example: "  enisle -C high inspect-media /media/usb",
		RunE: func(c *cobra.Command, args []string) error {
			m, err := e.app().InspectMedia(c.Context(), args...)
			if err != nil {
				return err
			}
			return e.result(m, func() { e.showMedium(m) })
		},
	}
}

func (e *env) showMedium(m app.Medium) {
	h := m.Header
	e.print("shipment   %s", h.ID)
	e.print("from       %s  key %.16s", h.From.Name, h.From.Fingerprint)
	for _, to := range h.To {
		e.print("to         %s  key %.16s", to.Name, to.Fingerprint)
	}
	e.print("sealed     %s, expires %s", h.Created.Format("2006-01-02 15:04"), h.Expires.Format("2006-01-02"))
	e.print("content    %d artifacts, %s, of which %s are here in %d volumes", h.Artifacts, size(h.Bytes), size(h.Carried.Bytes), len(h.Volumes))
	if len(m.Missing) > 0 {
		e.print("elsewhere  volumes %v", m.Missing)
	}
	for _, b := range h.Base {
		e.print("builds on  %s", b.ID)
	}
	if len(m.Ignored) > 0 {
		e.print("ignored    %s", strings.Join(m.Ignored, ", "))
	}
	if m.Verified {
		e.print("verified   the header is signed by a paired site; frames are checked by 'enisle verify'")
	} else {
		e.print("NOT VERIFIED, only claimed: %s", m.Why)
	}
}
