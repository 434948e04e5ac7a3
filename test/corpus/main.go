// Command corpus turns the names that fitted estimators pickle under, a line each,
// into the table of internal/judge/inspect/pickle. What takes code, a path or a
// function to call stays out.
package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

// never are parts of names that stay out, whatever pickles under them; constant.
var never = []string{
	"_ufunc", "_fromnxfunction", "getattr", "partial", "eval", "exec", "import", "load", "open", "compile", "test", "externals", "os.", "subprocess",
	"functools", "cloudpickle", "memory", "Memory", "parallel", "Parallel", "dynamo", "jit", "torch.hub", "torch.package", "distributed", "multiprocessing",
	"PyFunc", "scipy.stats", "configuration",
}

// scores reports whether a name is that of a function which estimators are given.
func scores(module, name string) bool {
	name = strings.TrimPrefix(name, "_")
	of := strings.HasPrefix(module, "sklearn.metrics.") || strings.HasPrefix(module, "sklearn.feature_selection.")
	return of && name != "newObj" && !strings.HasPrefix(name, "_") && strings.ToLower(name[:1]) == name[:1]
}

func main() {
	var names, handed []string
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, function := strings.CutPrefix(in.Text(), "=")
		if module, name, ok := strings.Cut(n, " "); ok && !slices.ContainsFunc(never, func(part string) bool { return strings.Contains(n, part) }) && !strings.Contains(name, ".") && module != "" {
			if function || scores(module, name) {
				handed = append(handed, n)
			} else {
				names = append(names, n)
			}
		}
	}
	names = append(names, "joblib.numpy_pickle NumpyArrayWrapper")
	slices.Sort(names)
	fmt.Print("package pickle\n\n// learnedNames are classes of fitted estimators and what they consist of, as\n// scikit-learn 0.24 to 1.9, scipy, pandas and torch pickle them. Made by 'make corpus'.\nconst learnedNames = `\n")
	for _, n := range slices.Compact(names) {
		fmt.Println(n)
	}
	fmt.Print("`\n\n// handedNames are functions that estimators are given to score and to select with.\nconst handedNames = `\n")
	slices.Sort(handed)
	for _, n := range slices.Compact(handed) {
		fmt.Println(n)
	}
	fmt.Println("`")
}
