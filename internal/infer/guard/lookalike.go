package guard

// lookalikes are letters that are drawn like a Latin one: pairs of them, the stranger
// first. Chosen by eye from the charts of the Unicode blocks Cyrillic, Greek, Armenian,
// Cherokee, Latin Extended, IPA and Phonetic Extensions, in lower case, without those
// that compatibility decomposition maps already. Constant.
const lookalikes = "аaвbсcԁdеeёeғfԍgһhнhіiїiјjкkӏlмmпnоoөoрpԛqгrѕsтtцuυuѵvԝwхxуyүyзz" +
	"αaβbϲcδdεeηnιiκkνvοoρpσoτtχxγyωwϳj" +
	"ɑaɒaƅbƃbɓbᴀaʙbᴄcƈcɔcᴅdɗdđdᴇeɛeǝeəeꜰfƒfɢgɠgɡgʜhħhɦhıiɪiɩiᴊjɉjᴋkƙkʟlɫlłlᴍmɱmɴnƞnŋnᴏoøoƥpᴘpʠqʀrɾrɽrꜱsʂsƽsᴛtƭtŧtᴜuʋuᴠvʌvᴡwɯmʏyƴyɣyᴢzƶzʐz" +
	"աwցgհhսuոnօoզqտsյjքp" +
	"ꭺaꮯcꭼeꮐgꮋhꮖiꭻjꮶkꮮlꮇmꮲpꭱrꮪsꭲtꮩvꮃwꮓz"

// latinOf maps them. Constant.
var latinOf = func() map[rune]byte {
	m := map[rune]byte{}
	var from rune
	for _, r := range lookalikes {
		if from == 0 {
			from = r
			continue
		}
		m[from] = byte(r)
		from = 0
	}
	return m
}()

// latin returns the Latin letter that r is drawn like, or 0.
func latin(r rune) byte {
	switch {
	case r >= 0x1F1E6 && r <= 0x1F1FF: // regional indicators
		return byte(r-0x1F1E6) + 'a'
	case r >= 0x1F150 && r <= 0x1F169: // white letters on black circles
		return byte(r-0x1F150) + 'a'
	case r >= 0x1F170 && r <= 0x1F189: // and squares
		return byte(r-0x1F170) + 'a'
	case r >= 0x2801 && r <= 0x283F: // Braille
		return braille[r-0x2800]
	case r < 0x80 || r > 0xABFF:
		return 0
	}
	return latinOf[r]
}

// braille is which letter the dots are (ISO 11548-1). Constant.
var braille = func() (t [64]byte) {
	for i, dots := range []byte{1, 3, 9, 25, 17, 11, 27, 19, 10, 26, 5, 7, 13, 29, 21, 15, 31, 23, 14, 30, 37, 39, 58, 45, 61, 53} {
		t[dots] = byte(i) + 'a'
	}
	return t
}()
