package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/fail"
	"enisle/internal/site/access"
)

func (e *env) user() *cobra.Command {
	c := &cobra.Command{
		Use: "user", Short: "Who may use what is served: users, keys, what each may do",
		Long: "Who may use what is served. Without users, everybody on this machine may and nobody else. With users, everybody shows a\n" +
			"key: as a bearer token, or as the password of the package client. The user 'anonymous' is whoever shows none.",
	}
	c.AddCommand(e.userAdd(), e.userKey(), e.userRevoke(), e.userRemove(), e.userList(), e.userUsage())
	return c
}

func (e *env) userAdd() *cobra.Command {
	var u access.User
	var days int
	c := &cobra.Command{
		Use: "add NAME [--role ROLE] [--channel CHANNEL] [--model MODEL]", Short: "Enrol a user, or change what one may do", Args: cobra.ExactArgs(1),
		Long: "Enrol a user, or change what one may do: what no option names stays as it was.",
		Example: "  enisle -C high user add ada --role mirror,inference --project radar --as olga --key olga.key\n" +
			"  enisle -C high user add ci --role mirror --channel stable,canary --days 90 --as olga --key olga.key\n" +
			"  enisle -C high user add anonymous --role mirror --as olga --key olga.key   # pulls need no key",
		RunE: func(c *cobra.Command, args []string) error {
			u.Name = args[0]
			if err := countsDown(days); err != nil {
				return err
			}
			if days > 0 {
				u.Expires = time.Now().AddDate(0, 0, days).UTC().Truncate(time.Second)
			}
			all, err := e.app().Users(c.Context())
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(all, func(o access.User) bool { return o.Name == u.Name }); i >= 0 {
				u = changed(all[i], u, c.Flags().Changed)
			}
			if err := e.app().SetUser(c.Context(), u); err != nil {
				return err
			}
			return e.result(u, func() {
				e.say("%s may use %s; 'enisle user key %s' makes a key", u.Name, strings.Join(u.Roles, ", "), u.Name)
			})
		},
	}
	f := c.Flags()
	f.StringSliceVar(&u.Roles, "role", []string{access.Mirror, access.Inference}, "mirror, inference or monitor; may be repeated")
	f.StringSliceVar(&u.Channels, "channel", []string{access.Default}, "channels to pull from")
	f.StringSliceVar(&u.Models, "model", nil, "models to ask; default: all")
	f.StringVar(&u.Project, "project", "", "project that usage is counted for")
	f.IntVar(&u.Weight, "weight", 1, "share of the engines beside others, 1 to 1000")
	f.Int64Var(&u.Tokens, "tokens", 0, "tokens a day; 0: no limit")
	f.IntVar(&days, "days", 0, "how long the user counts; default: until removed")
	return c
}

// changed is a user of whom only what options name becomes as in to.
func changed(u, to access.User, named func(option string) bool) access.User {
	for option, set := range map[string]func(){
		"role": func() { u.Roles = to.Roles }, "channel": func() { u.Channels = to.Channels }, "model": func() { u.Models = to.Models },
		"project": func() { u.Project = to.Project }, "weight": func() { u.Weight = to.Weight }, "tokens": func() { u.Tokens = to.Tokens },
		"days": func() { u.Expires = to.Expires },
	} {
		if named(option) {
			set()
		}
	}
	return u
}

// countsDown refuses days that have passed: what they bound would have no bound.
func countsDown(days int) error {
	if days < 0 {
		return fail.As(fail.Usage, "give the days from now on; 0 is without an end", fmt.Errorf("--days %d is in the past", days))
	}
	return nil
}

func (e *env) userKey() *cobra.Command {
	var days int
	c := &cobra.Command{
		Use: "key NAME", Short: "Make a key for a user; it is shown once", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high user key ada --days 90 --as olga --key olga.key",
		RunE: func(c *cobra.Command, args []string) error {
			if err := countsDown(days); err != nil {
				return err
			}
			out, err := e.app().AddUserKey(c.Context(), args[0], time.Duration(days)*24*time.Hour)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				e.say("keep it now: it is not shown again; 'enisle user revoke %s %s' ends it", out.User, out.ID)
				e.print("%s", out.Key)
			})
		},
	}
	c.Flags().IntVar(&days, "days", 0, "how long the key counts; default: until revoked")
	return c
}

func (e *env) userRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME KEY", Short: "Make a key count no more, by its id or itself", Args: cobra.ExactArgs(2),
		Example: "  enisle -C high user revoke ada 5f2a90c1d3e4 --as olga --key olga.key",
		RunE: func(c *cobra.Command, args []string) error {
			if err := e.app().RevokeUserKey(c.Context(), args[0], args[1]); err != nil {
				return err
			}
			return e.result(map[string]string{"user": args[0], "revoked": args[1]}, func() { e.say("the key counts no more") })
		},
	}
}

func (e *env) userRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a user with all keys", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high user remove ada --as olga --key olga.key",
		RunE: func(c *cobra.Command, args []string) error {
			if err := e.app().RemoveUser(c.Context(), args[0]); err != nil {
				return err
			}
			return e.result(map[string]string{"removed": args[0]}, func() { e.say("%s may use nothing any more", args[0]) })
		},
	}
}

func (e *env) userList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show every user and what each may do", Args: cobra.NoArgs,
		Example: "  enisle -C high user list --json",
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := e.app().Users(c.Context())
			if err != nil {
				return err
			}
			return e.result(all, func() {
				for _, u := range all {
					e.print("%s  %s; channels %s%s%s", u.Name, strings.Join(u.Roles, ", "), strings.Join(u.Channels, ", "), bounds(u), until(u.Expires))
					for _, k := range u.Keys {
						e.print("  key %s of %s%s", k.ID, k.Made.Format(time.DateOnly), until(k.Expires))
					}
				}
				if len(all) == 0 {
					e.say("nobody is enrolled: everybody on this machine may use what is served, and nobody else")
				}
			})
		},
	}
}

func (e *env) userUsage() *cobra.Command {
	var days int
	c := &cobra.Command{
		Use: "usage", Short: "What users asked of models, and whether the record of it is whole", Args: cobra.NoArgs,
		Example: "  enisle -C high user usage --days 7",
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().Usage(c.Context(), time.Now().AddDate(0, 0, -days))
			if err != nil {
				return err
			}
			if err := e.result(out, func() {
				for _, u := range out.Usage {
					name := u.User
					if name == "" {
						name = "(anybody)"
					}
					if u.Project != "" {
						name += " for " + u.Project
					}
					e.print("%s  %s: %d calls, %d of them not answered; %d tokens read, %d written; last %s%s", name, u.Model, u.Calls, u.Failed, u.Prompt, u.Completion, u.Last.Format(time.DateTime), verdicts("; judged: ", u.Judgements))
				}
				if len(out.Usage) == 0 {
					e.say("no model was asked")
				}
			}); err != nil {
				return err
			}
			return unbroken(out.Files)
		},
	}
	c.Flags().IntVar(&days, "days", 30, "how far back to look")
	return c
}

// unbroken refuses a record of calls that was changed.
func unbroken(files []app.CallsFile) error {
	for _, f := range files {
		if f.Broken != "" {
			return fail.Refuse("tell the security officer; the ledger says how older files ended ('enisle ledger search serve')", fmt.Errorf("the record of calls %s was changed: %s", f.Name, f.Broken))
		}
	}
	return nil
}

// bounds says what else is not as usual for a user.
func bounds(u access.User) (out string) {
	if len(u.Models) > 0 {
		out += "; models " + strings.Join(u.Models, ", ")
	}
	if u.Project != "" {
		out += "; project " + u.Project
	}
	if u.Tokens > 0 {
		out += fmt.Sprintf("; %d tokens a day", u.Tokens)
	}
	if u.Weight > 1 {
		out += fmt.Sprintf("; weight %d", u.Weight)
	}
	return out
}

func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", until " + t.Format(time.DateOnly)
}
