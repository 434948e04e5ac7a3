// Package guard says what of a prompt may go to a model, and what of an answer may go
// to a person. It is pure: no network, no clock, no file.
package guard

// Source says where a span of a prompt came from.
type Source int

// The sources, from the most trusted to the least.
const (
	System    Source = iota // who runs the application wrote it
	User                    // who asks wrote it
	Assistant               // a model wrote it earlier
	Tool                    // a tool returned it
	Retrieved               // it was found in documents
)

// Untrusted reports whether anybody may have written the text.
func (s Source) Untrusted() bool { return s >= Tool }

// Span is one text of a prompt.
type Span struct {
	Source Source
	Text   string
}

// Prompt is a request as the guard reads it.
type Prompt struct {
	Route string // path of the API
	Model string
	Spans []Span   // in the order of the conversation
	Tools []string // names of the tools that the model may call
	// Descriptions are what else the model is told of them, in its order: every text and
	// every name but theirs.
	Descriptions []Description
	// Unread says that there is more in it that is not text.
	Unread bool
}

// Description is a text in the definition of a tool.
type Description struct {
	Text string
	Name bool // of something that the tool is given
}

// Finding is one thing that was noticed.
type Finding struct {
	Rule  string  `json:"rule"`
	Score float64 `json:"score,omitempty"` // of a classifier
	Where string  `json:"where,omitempty"` // which source
}

// Ruling is what is to be done with a prompt.
type Ruling struct {
	Block    string // why it is refused, for the person; empty: it goes on
	Findings []Finding
	Rewrite  map[int]string // other texts of spans, by their index
	// Answer reads the answer; nil: nobody does.
	Answer Answer
	// Judge says which model is asked about the call after it was answered; nil: none is.
	Judge *JudgePolicy
}

// Answer reads one answer while it is written. Lanes are independent texts of it, such
// as the content of choice 0 or the arguments of one tool call.
type Answer interface {
	// Add takes what was added to a lane and returns how many bytes of the lane, from
	// its beginning, may be shown now. Block says why no more of the answer may be
	// shown; it is final.
	Add(lane string, text []byte) (safe int, block string)
	// Safe is how many bytes of a lane may be shown now. It grows as well when another
	// lane goes on where this one ended.
	Safe(lane string) int
	// Call takes a whole call of a tool.
	Call(tool, arguments string) (block string)
	// End says that all of the answer was added: everything that is not blocked may be
	// shown.
	End() (block string)
	// Findings returns what was noticed.
	Findings() []Finding
}

// Guard rules on prompts. It is safe for concurrent use.
type Guard interface {
	Prompt(p *Prompt) Ruling
}
