package cli

import "github.com/spf13/cobra"

func (e *env) policy() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "Show and change the rules"}
	c.AddCommand(e.policyShow(), e.policySet(), e.policyTest())
	return c
}

func (e *env) policyShow() *cobra.Command {
	var proposed bool
	c := &cobra.Command{
		Use: "show", Short: "Print the policy in force", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := e.app().ShowPolicy(c.Context(), proposed)
			if err != nil {
				return err
			}
			_, err = e.stdout.Write(b)
			return err
		},
	}
	c.Flags().BoolVar(&proposed, "proposed", false, "print the one that a proposed root would put in force")
	return c
}

func (e *env) policySet() *cobra.Command {
	return &cobra.Command{
		Use: "set standard|strict|FILE", Short: "Put another policy in force; after sealing a second admin signs it", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high policy show > policy.yaml   # edit it, then\n  enisle -C high policy set policy.yaml --as adam --key adam.key",
		RunE: func(c *cobra.Command, args []string) error {
			pending, err := e.app().SetPolicy(c.Context(), args[0])
			if err != nil {
				return err
			}
			return e.result(map[string]any{"policy": args[0], "pending": pending}, func() {
				if pending {
					e.say("proposed; a second admin reads it with 'enisle policy show --proposed' and signs it with 'enisle trust sign'")
					return
				}
				e.say("the policy is in force")
			})
		},
	}
}
