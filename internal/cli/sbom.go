package cli

import (
	"os"

	"github.com/spf13/cobra"
)

func (e *env) sbom() *cobra.Command {
	var to, channel string
	var number int64
	c := &cobra.Command{
		Use: "sbom", Short: "Say what a release consists of, in CycloneDX", Args: cobra.NoArgs,
		Long: "Write the bill of materials of a release as CycloneDX 1.6: packages, models and data with digests, what lies inside of them,\n" +
			"licences, and known vulnerabilities, from the newest reports. The record has the digest of the one at release time.",
		Example: "  enisle -C high sbom > stable.cdx.json\n  enisle -C high sbom --release 3 --to release-3.cdx.json",
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := e.app().SBOM(c.Context(), channel, number)
			if err != nil {
				return err
			}
			if to != "" {
				if err := os.WriteFile(to, b, 0o644); err != nil {
					return err
				}
				e.say("%s: %s", to, size(int64(len(b))))
				return nil
			}
			_, err = e.stdout.Write(b)
			return err
		},
	}
	c.Flags().StringVar(&channel, "channel", "stable", "the channel whose release it is about")
	c.Flags().Int64Var(&number, "release", 0, "number of a release; 0 is the one that the channel points at")
	c.Flags().StringVar(&to, "to", "", "file to write; nothing means the standard output")
	return c
}
