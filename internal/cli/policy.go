package cli

import "github.com/spf13/cobra"

func (e *env) policy() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Show the rules"}
	c.AddCommand(&cobra.Command{
		Use: "show", Short: "Print the policy in force", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := e.app().ShowPolicy(c.Context())
			if err != nil {
				return err
			}
			_, err = e.stdout.Write(b)
			return err
		},
	})
	return c
}
