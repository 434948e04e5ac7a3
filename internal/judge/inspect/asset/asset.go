// Package asset knows files that stand beside the weights of models and hold only
// data: pictures, sound, tables, vocabularies of tokenizers, and weights of formats
// that are plain numbers.
//
// It knows them by their first bytes and looks whether a picture ends where its
// format says, since what stands behind belongs to another reader. It decodes none.
package asset

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/wire"
)

// Scanner knows plain data; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "asset".
func (Scanner) Name() string { return "asset" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "1" }

// format is one kind of file.
type format struct {
	name  string
	magic string
	at    int      // offset of the magic in bytes
	exts  []string // that such a file may have
	end   func(inspect.Subject) error
}

// formats are all of them; constant. None begins with what a reader of pickles, of
// programs or of archives takes for its own.
var formats = []format{
	{"png", "\x89PNG\r\n\x1a\n", 0, []string{".png"}, pngEnd},
	{"jpeg", "\xff\xd8\xff", 0, []string{".jpg", ".jpeg", ".jfif"}, jpegEnd},
	{"gif", "GIF87a", 0, []string{".gif"}, gifEnd},
	{"gif", "GIF89a", 0, []string{".gif"}, gifEnd},
	{"webp", "WEBP", 8, []string{".webp"}, riffEnd},
	{"wav", "WAVE", 8, []string{".wav"}, riffEnd},
	{"mp3", "ID3", 0, []string{".mp3"}, nil},
	{"mp3", "\xff\xfb", 0, []string{".mp3"}, nil},
	{"flac", "fLaC", 0, []string{".flac"}, nil},
	{"ogg", "OggS", 0, []string{".ogg", ".oga", ".opus"}, nil},
	{"mp4", "ftyp", 4, []string{".mp4", ".m4a", ".mov", ".avif", ".heic"}, nil},
	{"webm", "\x1a\x45\xdf\xa3", 0, []string{".webm", ".mkv"}, nil},
	{"icon", "\x00\x00\x01\x00", 0, []string{".ico"}, nil},
	{"font", "\x00\x01\x00\x00", 0, []string{".ttf"}, nil},
	{"font", "OTTO", 0, []string{".otf"}, nil},
	{"font", "wOF", 0, []string{".woff", ".woff2"}, nil},
	{"pdf", "%PDF-", 0, []string{".pdf"}, nil},
	{"parquet", "PAR1", 0, []string{".parquet"}, parquetEnd},
	{"arrow", "ARROW1", 0, []string{".arrow", ".feather"}, nil},
	{"fasttext", "\xba\x16\x4f\x2f", 0, []string{".bin", ".ftz"}, nil},
	{"xgboost", "{L\x00\x00\x00\x00\x00\x00", 0, []string{".ubj", ".model", ".bin", ".bst", ".xgb", ".dat"}, nil},
	{"catboost", "CBM1", 0, []string{".cbm"}, nil},
}

// of returns the format of a subject; nil: none. Name and bytes must agree.
func of(s inspect.Subject) *format {
	ext := strings.ToLower(path.Ext(s.Path))
	for i, f := range formats {
		if len(s.Head) >= f.at+len(f.magic) && string(s.Head[f.at:f.at+len(f.magic)]) == f.magic && slices.Contains(f.exts, ext) {
			return &formats[i]
		}
	}
	return nil
}

// Is reports whether a subject is plain data by its name and its bytes.
func Is(s inspect.Subject) bool {
	return (s.Ref.Kind == "model" || s.Ref.Kind == "hf") && (of(s) != nil || sentencePiece(s))
}

// Wants takes the formats above in models.
func (Scanner) Wants(s inspect.Subject) bool { return Is(s) }

// Scan looks where the file ends.
func (Scanner) Scan(_ context.Context, s inspect.Subject, run inspect.Run) error {
	f := of(s)
	if f == nil {
		run.Note(inspect.Format, "sentencepiece")
		return nil
	}
	run.Note(inspect.Format, f.name)
	if f.end != nil {
		if err := f.end(s); err != nil {
			run.Report("end", inspect.Refuse, f.name+": "+err.Error())
		}
	}
	return nil
}

var (
	errBehind = errors.New("bytes stand behind its end")
	errCut    = errors.New("it is cut short")
)

// pngEnd follows the chunks (PNG 3rd edition, section 5).
func pngEnd(s inspect.Subject) error {
	head := make([]byte, 8)
	for at := int64(8); ; {
		if _, err := s.ReadAt(head, at); err != nil {
			return errCut
		}
		at += 12 + int64(binary.BigEndian.Uint32(head))
		switch {
		case at > s.Size:
			return errCut
		case string(head[4:]) == "IEND" && at < s.Size:
			return errBehind
		case string(head[4:]) == "IEND":
			return nil
		}
	}
}

// last returns the last n bytes, fewer of a shorter file.
func last(s inspect.Subject, n int64) []byte {
	b := make([]byte, min(n, s.Size))
	_, err := s.ReadAt(b, s.Size-int64(len(b)))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return b
}

// jpegEnd wants the end marker near the end: cameras fill up behind it.
func jpegEnd(s inspect.Subject) error {
	if !bytes.Contains(last(s, 64<<10), []byte("\xff\xd9")) {
		return errBehind
	}
	return nil
}

func gifEnd(s inspect.Subject) error {
	if b := bytes.TrimRight(last(s, 1024), "\x00"); len(b) == 0 || b[len(b)-1] != 0x3b {
		return errBehind
	}
	return nil
}

func riffEnd(s inspect.Subject) error {
	if size := int64(binary.LittleEndian.Uint32(s.Head[4:])) + 8; string(s.Head[:4]) != "RIFF" || size+size%2 < s.Size {
		return errBehind
	}
	return nil
}

func parquetEnd(s inspect.Subject) error {
	if string(last(s, 4)) != "PAR1" {
		return errBehind
	}
	return nil
}

// sentencePiece reports whether a file is a model of sentencepiece: a message of
// protocol buffers whose first fields are pieces with a text each
// (sentencepiece_model.proto).
func sentencePiece(s inspect.Subject) bool {
	if !slices.Contains([]string{".model", ".spm", ".vocab"}, strings.ToLower(path.Ext(s.Path))) || !bytes.HasPrefix(s.Head, []byte{0x0a}) {
		return false
	}
	m := wire.Open(s, s.Size, 10_000_000)
	for n := 0; ; n++ {
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			return n > 3
		}
		// pieces, and what they were trained and are read with
		if err != nil || f.Type != wire.Bytes || f.Number < 1 || f.Number > 5 {
			return false
		}
	}
}
