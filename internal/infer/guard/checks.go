package guard

// Checksums of numbers that belong to persons, by name. They look at digits and
// letters and pass over what stands between them. Constant.
var checks = map[string]func([]byte) bool{
	"luhn": func(b []byte) bool { d := digits(b); return len(d) >= 13 && len(d) <= 19 && luhn(d) && !uniform(d) },
	"iban": iban,
	"pesel": func(b []byte) bool {
		d := digits(b)
		return weighed(d, 11, []int{1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1}, 10) && !uniform(d)
	},
	"bsn": func(b []byte) bool {
		d := digits(b)
		return weighed(d, 9, []int{9, 8, 7, 6, 5, 4, 3, 2, -1}, 11) && !uniform(d)
	},
	"steuerid": steuerID,
	"nir":      nir,
	"aadhaar":  verhoeff,
}

func digits(b []byte) (d []byte) {
	for _, c := range b {
		if c >= '0' && c <= '9' {
			d = append(d, c-'0')
		}
	}
	return d
}

// uniform reports whether all digits are the same.
func uniform(d []byte) bool {
	for _, c := range d {
		if c != d[0] {
			return false
		}
	}
	return true
}

// luhn is ISO/IEC 7812-1, annex B.
func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		n := int(d[len(d)-1-i])
		if i%2 == 1 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return sum%10 == 0
}

// iban is ISO 13616: the number, turned and read in base 36, leaves 1 modulo 97.
func iban(b []byte) bool {
	var s []byte
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9' || c >= 'A' && c <= 'Z':
			s = append(s, c)
		case c >= 'a' && c <= 'z':
			s = append(s, c-'a'+'A')
		}
	}
	if len(s) < 15 || len(s) > 34 {
		return false
	}
	n := 0
	for _, c := range append(s[4:len(s):len(s)], s[:4]...) {
		if c >= 'A' {
			n = (n*100 + int(c-'A') + 10) % 97
		} else {
			n = (n*10 + int(c-'0')) % 97
		}
	}
	return n == 1
}

func weighed(d []byte, length int, weights []int, modulo int) bool {
	if len(d) != length {
		return false
	}
	sum := 0
	for i, w := range weights {
		sum += w * int(d[i])
	}
	return sum%modulo == 0
}

// steuerID is the German tax number: ISO 7064, MOD 11,10, one digit two or three times.
func steuerID(b []byte) bool {
	d := digits(b)
	if len(d) != 11 || d[0] == 0 {
		return false
	}
	var count [10]int
	for _, c := range d[:10] {
		count[c]++
	}
	twice, missing := 0, 0
	for _, n := range count {
		if n == 2 || n == 3 {
			twice++
		}
		if n == 0 {
			missing++
		}
		if n > 3 {
			return false
		}
	}
	if twice != 1 || missing > 2 {
		return false
	}
	p := 10
	for _, c := range d[:10] {
		s := (int(c) + p) % 10
		if s == 0 {
			s = 10
		}
		p = s * 2 % 11
	}
	return (11-p)%10 == int(d[10])
}

// nir is the French number of social security: the rest of 13 digits by 97, from 97.
func nir(b []byte) bool {
	d := digits(b)
	if len(d) != 15 || d[0] != 1 && d[0] != 2 {
		return false
	}
	n := 0
	for _, c := range d[:13] {
		n = (n*10 + int(c)) % 97
	}
	return 97-n == int(d[13])*10+int(d[14])
}

// verhoeff is the checksum of Indian Aadhaar numbers (Verhoeff 1969), by the dihedral
// group of the pentagon.
func verhoeff(b []byte) bool {
	d := digits(b)
	if len(d) != 12 || d[0] < 2 {
		return false
	}
	turn := [10]byte{1, 5, 7, 6, 2, 8, 3, 0, 9, 4}
	c := byte(0)
	for i := range d {
		n := d[len(d)-1-i]
		for range i % 8 {
			n = turn[n]
		}
		c = dihedral(c, n)
	}
	return c == 0
}

func dihedral(a, b byte) byte {
	switch {
	case a < 5 && b < 5:
		return (a + b) % 5
	case a < 5:
		return (a+b-5)%5 + 5
	case b < 5:
		return (a-5+5-b)%5 + 5
	}
	return (a - b + 5) % 5
}
