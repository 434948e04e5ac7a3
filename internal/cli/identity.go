package cli

import "github.com/spf13/cobra"

func (e *env) identity() *cobra.Command {
	return &cobra.Command{
		Use: "identity", Short: "Print what another site needs to know of this one", Args: cobra.NoArgs,
		Example: "  enisle -C high identity > high.id",
		RunE: func(c *cobra.Command, _ []string) error {
			id, encoded, err := e.app().Identity(c.Context())
			if err != nil {
				return err
			}
			e.say("fingerprint of %s: %s", id.Name, id.Fingerprint())
			_, err = e.stdout.Write(encoded)
			return err
		},
	}
}
