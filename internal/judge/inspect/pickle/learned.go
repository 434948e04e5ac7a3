package pickle

import "strings"

// learned reports whether a name is one of the classes of fitted estimators and of
// what they consist of.
func learned(g global) bool {
	return strings.Contains(learnedNames, "\n"+g.module+" "+g.name+"\n")
}

// handed reports whether a name is one of the functions that estimators are given,
// to be called when they are used.
func handed(g global) bool {
	return strings.Contains(handedNames, "\n"+g.module+" "+g.name+"\n")
}
