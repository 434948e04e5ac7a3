package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/infer/guard"
)

func (e *env) guardJudged() *cobra.Command {
	var days int
	var all bool
	c := &cobra.Command{
		Use: "judged", Short: "List the calls that the guard's judge took for attacks", Args: cobra.NoArgs,
		Long: "List the calls that the guard's judge took for attacks, the last first, with --all the others that were to be judged as well. The judge\n" +
			"is a model and can be wrong in both ways, and can be talked to by what it reads: look at the calls yourself.",
		Example: "  enisle -C high guard judged --days 1\n  enisle -C high guard judged --all --json",
		RunE: func(c *cobra.Command, _ []string) error {
			want := []guard.Verdict{guard.Attack}
			if all {
				want = append(want, guard.Clean, guard.Unclear, guard.NotJudged)
			}
			out, err := e.app().Judged(c.Context(), time.Now().AddDate(0, 0, -days), want)
			if err != nil {
				return err
			}
			if err := e.result(out, func() {
				for _, j := range out.Calls {
					name := j.User
					if name == "" {
						name = "(anybody)"
					}
					found := make([]string, len(j.Findings))
					for i, f := range j.Findings {
						found[i] = f.Rule
					}
					e.print("%s  %s  %s  %s  %s%s", j.At.UTC().Format(time.DateTime), j.Judge.ID, name, j.Model, j.Judge.Verdict, listed(" ", j.Judge.Where, j.Judge.Why)+listed("; found: ", found...))
				}
				if len(out.Verdicts) == 0 {
					e.say("no call was to be judged: the policy names no judge, or nothing that it reads was sent")
					return
				}
				e.say("%s", verdicts("judged: ", out.Verdicts))
				for _, why := range slices.Sorted(maps.Keys(out.Missed)) {
					e.say("not judged, %s: %d", why, out.Missed[why])
				}
			}); err != nil {
				return err
			}
			return unbroken(out.Files)
		},
	}
	c.Flags().IntVar(&days, "days", 30, "how far back to look")
	c.Flags().BoolVar(&all, "all", false, "list all that were to be judged")
	return c
}

// verdicts counts judgements in words, behind a text; empty: there are none.
func verdicts(before string, n map[guard.Verdict]int) string {
	var out []string
	for _, v := range []guard.Verdict{guard.Attack, guard.Clean, guard.Unclear, guard.NotJudged} {
		if n[v] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[v], v))
		}
	}
	return listed(before, out...)
}

// listed joins what is not empty, behind a text; empty: nothing is.
func listed(before string, all ...string) string {
	all = slices.DeleteFunc(all, func(s string) bool { return s == "" })
	if len(all) == 0 {
		return ""
	}
	return before + strings.Join(all, ", ")
}
