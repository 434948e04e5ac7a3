// Package label draws the label of a medium: text for people and a QR code for
// machines, as SVG and as PNG. A label proves nothing: what it says is compared
// with what is signed.
package label

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"

	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
	"rsc.io/qr"
)

// Label is what stands on a medium: a title, lines of text, and what the code
// says.
type Label struct {
	Title string
	Lines []string
	Code  string
}

// Sizes, in units: a module of the code is one.
const (
	quiet      = 4 // modules of white around a code (ISO/IEC 18004)
	lineHeight = 5
	textWidth  = 120
	scale      = 6 // pixels of a unit
)

func (l Label) code() (*qr.Code, error) {
	c, err := qr.Encode(l.Code, qr.Q)
	if err != nil {
		return nil, fmt.Errorf("label: %w", err)
	}
	return c, nil
}

func (l Label) height(c *qr.Code) int {
	return max(c.Size+2*quiet, 2*quiet+lineHeight*(len(l.Lines)+2))
}

// SVG returns the label as a drawing, 2 units a millimetre.
func (l Label) SVG() ([]byte, error) {
	c, err := l.code()
	if err != nil {
		return nil, err
	}
	w, h := c.Size+2*quiet+textWidth, l.height(c)
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%dmm" height="%dmm" viewBox="0 0 %d %d"><rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, w/2, h/2, w, h, w, h)
	for y := range c.Size {
		for x := range c.Size {
			if c.Black(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	b.WriteString(`"/><g font-family="monospace" fill="#000">`)
	x := c.Size + 2*quiet
	text := func(y int, size float64, weight, s string) error {
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="%.1f" font-weight="%s">`, x, y, size, weight)
		if err := xml.EscapeText(&b, []byte(s)); err != nil {
			return err
		}
		b.WriteString("</text>")
		return nil
	}
	if err := text(quiet+lineHeight, 5, "bold", l.Title); err != nil {
		return nil, err
	}
	for i, s := range l.Lines {
		if err := text(quiet+lineHeight*(i+2)+1, 3.5, "normal", s); err != nil {
			return nil, err
		}
	}
	b.WriteString("</g></svg>\n")
	return b.Bytes(), nil
}

// PNG returns the label as an image in black and white.
func (l Label) PNG() ([]byte, error) {
	c, err := l.code()
	if err != nil {
		return nil, err
	}
	w, h := c.Size+2*quiet+textWidth, l.height(c)
	img := image.NewGray(image.Rect(0, 0, w*scale, h*scale))
	for i := range img.Pix {
		img.Pix[i] = 0xff
	}
	for y := range c.Size {
		for x := range c.Size {
			if c.Black(x, y) {
				fill(img, (x+quiet)*scale, (y+quiet)*scale, scale)
			}
		}
	}
	x := (c.Size + 2*quiet) * scale
	write(img, x, (quiet+1)*scale, 3, l.Title)
	for i, s := range l.Lines {
		write(img, x, (quiet+lineHeight*(i+1)+2)*scale, 2, s)
	}
	var b bytes.Buffer
	err = png.Encode(&b, img)
	return b.Bytes(), err
}

func fill(img *image.Gray, x, y, size int) {
	for dy := range size {
		for dx := range size {
			img.SetGray(x+dx, y+dy, color.Gray{})
		}
	}
}

// write draws a line of text, each pixel of the font a square.
func write(img *image.Gray, x, y, size int, s string) {
	face := basicfont.Face7x13
	line := image.NewAlpha(image.Rect(0, 0, face.Advance*len(s)+1, face.Height))
	d := font.Drawer{Dst: line, Src: image.Opaque, Face: face, Dot: fixed.P(0, face.Ascent)}
	d.DrawString(strings.ToValidUTF8(s, "?"))
	for py := range line.Rect.Dy() {
		for px := range line.Rect.Dx() {
			if line.AlphaAt(px, py).A > 0 {
				fill(img, x+px*size, y+py*size, size)
			}
		}
	}
}
