package cli

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"enisle/internal/fail"
)

var sizePattern = regexp.MustCompile(`(?i)^([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?$`)

// parseMedia returns the bytes of a volume for a media profile or a size such
// as 700MB, 25GB, 4GiB. Profiles leave room for the file system.
func parseMedia(s string) (int64, error) {
	switch strings.ToLower(s) {
	case "":
		return 0, nil
	case "cd":
		return 690_000_000, nil // 700 MB, ECMA-130
	case "dvd":
		return 4_650_000_000, nil // 4.7 GB, ECMA-267
	case "bd25":
		return 24_900_000_000, nil // 25,025,314,816 bytes, BD-R
	case "bd50":
		return 49_900_000_000, nil
	case "bd100":
		return 99_900_000_000, nil
	case "usb-fat32":
		return 4_000_000_000, nil // below 4 GiB - 1, the largest file of FAT32
	case "usb":
		return 1_000_000_000_000, nil
	}
	n, err := parseSize(s)
	if err != nil {
		return 0, fail.As(fail.Usage, "use cd, dvd, bd25, bd50, bd100, usb-fat32, usb, or a size such as 700MB or 4GiB", fmt.Errorf("media: %w", err))
	}
	return n, nil
}

// parseSize returns the bytes of a size such as 700MB, 25GB, 4GiB.
func parseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, fail.As(fail.Usage, "give a size such as 700MB or 4GiB", fmt.Errorf("size %q is not known", s))
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, err
	}
	unit := strings.ToLower(m[2])
	base := 1000.0
	if strings.HasSuffix(unit, "i") {
		base = 1024
	}
	if unit != "" {
		f *= math.Pow(base, float64(strings.Index("kmgt", unit[:1])+1))
	}
	if f < 1 || f > 1<<50 {
		return 0, fail.As(fail.Usage, "give a size from one byte to 1024 TiB", fmt.Errorf("size %q is out of bounds", s))
	}
	return int64(f), nil
}

// parseShare returns a percentage such as 5% or 2.5% in thousandths.
func parseShare(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f >= 0 && f <= 50) {
		return 0, fail.As(fail.Usage, "give a percentage from 0% to 50%", fmt.Errorf("parity %q", s))
	}
	return int(math.Ceil(f * 10)), nil
}
