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
}

func main() {
	var names []string
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n := in.Text()
		if module, name, ok := strings.Cut(n, " "); ok && !slices.ContainsFunc(never, func(part string) bool { return strings.Contains(n, part) }) && !strings.Contains(name, ".") && module != "" {
			names = append(names, n)
		}
	}
	names = append(names, "joblib.numpy_pickle NumpyArrayWrapper")
	slices.Sort(names)
	fmt.Print("package pickle\n\n// learnedNames are classes of fitted estimators and what they consist of, as\n// scikit-learn 1.2 to 1.7, scipy, pandas and torch pickle them. Made by 'make corpus'.\nconst learnedNames = `\n")
	for _, n := range slices.Compact(names) {
		fmt.Println(n)
	}
	fmt.Println("`")
}
