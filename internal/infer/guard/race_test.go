//go:build race

package guard

const raced = true // what takes time takes ten times as much
