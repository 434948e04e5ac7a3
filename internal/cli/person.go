package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"enisle/internal/fail"
)

func (e *env) person() *cobra.Command {
	c := &cobra.Command{Use: "person", Short: "Enrol people"}
	var roles []string
	var pub string
	add := &cobra.Command{
		Use: "add NAME --role ROLE --key FILE.pub", Short: "Enrol a person: open until the first pack or import, later by two admins", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high person add alice --role approver --key alice.key.pub\n" +
			"  enisle -C high person add carol --role importer --public carol.key.pub --as adam --key adam.key   # after sealing",
		RunE: func(c *cobra.Command, args []string) error {
			a := e.app()
			if pub == "" && e.as == "" {
				// Before sealing nobody has to prove who they are: --key is the newcomer's.
				pub, a.KeyFile = e.key, ""
			}
			if pub == "" || len(roles) == 0 {
				return fail.As(fail.Usage, "give --role ROLE and the person's public key", errors.New("person add: role or key is missing"))
			}
			pending, err := a.AddPerson(c.Context(), args[0], roles, pub)
			if err != nil {
				return err
			}
			return e.result(map[string]any{"name": args[0], "roles": roles, "pending": pending}, func() {
				if pending {
					e.say("proposed; a second admin signs it with 'enisle trust sign'")
					return
				}
				e.say("%s is enrolled", args[0])
			})
		},
	}
	add.Flags().StringSliceVar(&roles, "role", nil, "collector, importer, approver, officer or admin; may be repeated")
	add.Flags().StringVar(&pub, "public", "", "the person's .pub file, when --as and --key say who acts")
	c.AddCommand(add)
	return c
}
