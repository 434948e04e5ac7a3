package onnx

import "enisle/internal/model/wire"

// use is what a field holds.
type use byte

const (
	number use = iota // a varint: many may be packed
	single            // 4 bytes each, may be packed
	double            // 8 bytes each, may be packed
	text              // kept, at most maxText bytes
	raw               // never read
	body              // a message
)

// field is one field of a message.
type field struct {
	use  use
	many bool
	of   kind // of a body
}

// kind is the type of a message.
type kind byte

const (
	model kind = iota
	graph
	node
	attribute
	tensor
	sparse
	entry // StringStringEntryProto
	opset
	value // ValueInfoProto
	typ
	typTensor
	typSequence
	typMap
	typOptional
	typOpaque
	shape
	dim
	training
	function
	annotation
	device
	deviceUse
	sharding
	shardedDim
	simpleDim
	deviceGroup
	kinds
)

// maxField is above every number of a field.
const maxField = 32

// schema is what messages may hold: onnx.proto of ONNX 1.19 (IR version 12).
// Whatever is not in it is refused, as is a second of what stands once. Constant.
var schema = [kinds][maxField]*field{
	model: {
		1: {use: number}, 2: {use: text}, 3: {use: text}, 4: {use: text}, 5: {use: number}, 6: {use: raw}, 7: {use: body, of: graph},
		8: {use: body, many: true, of: opset}, 14: {use: body, many: true, of: entry}, 20: {use: body, many: true, of: training},
		25: {use: body, many: true, of: function}, 26: {use: body, many: true, of: device},
	},
	graph: {
		1: {use: body, many: true, of: node}, 2: {use: text}, 5: {use: body, many: true, of: tensor}, 10: {use: raw},
		11: {use: body, many: true, of: value}, 12: {use: body, many: true, of: value}, 13: {use: body, many: true, of: value},
		14: {use: body, many: true, of: annotation}, 15: {use: body, many: true, of: sparse}, 16: {use: body, many: true, of: entry},
	},
	node: {
		1: {use: raw, many: true}, 2: {use: raw, many: true}, 3: {use: text}, 4: {use: text}, 5: {use: body, many: true, of: attribute},
		6: {use: raw}, 7: {use: text}, 8: {use: text}, 9: {use: body, many: true, of: entry}, 10: {use: body, many: true, of: deviceUse},
	},
	attribute: {
		1: {use: text}, 2: {use: single}, 3: {use: number}, 4: {use: raw}, 5: {use: body, of: tensor}, 6: {use: body, of: graph},
		7: {use: single, many: true}, 8: {use: number, many: true}, 9: {use: raw, many: true}, 10: {use: body, many: true, of: tensor},
		11: {use: body, many: true, of: graph}, 13: {use: raw}, 14: {use: body, of: typ}, 15: {use: body, many: true, of: typ},
		20: {use: number}, 21: {use: text}, 22: {use: body, of: sparse}, 23: {use: body, many: true, of: sparse},
	},
	tensor: {
		dims: {use: number, many: true}, dataType: {use: number}, floatData: {use: single, many: true}, int32Data: {use: number, many: true},
		stringData: {use: raw, many: true}, int64Data: {use: number, many: true}, 8: {use: text}, rawData: {use: raw},
		doubleData: {use: double, many: true}, uint64Data: {use: number, many: true}, 12: {use: raw},
		13: {use: body, many: true, of: entry}, dataLocation: {use: number}, 16: {use: body, many: true, of: entry},
	},
	sparse:      {1: {use: body, of: tensor}, 2: {use: body, of: tensor}, 3: {use: number, many: true}},
	entry:       {1: {use: text}, 2: {use: raw}},
	opset:       {1: {use: text}, 2: {use: number}},
	value:       {1: {use: text}, 2: {use: body, of: typ}, 3: {use: raw}, 4: {use: body, many: true, of: entry}},
	typ:         {1: {use: body, of: typTensor}, 4: {use: body, of: typSequence}, 5: {use: body, of: typMap}, 6: {use: text}, 7: {use: body, of: typOpaque}, 8: {use: body, of: typTensor}, 9: {use: body, of: typOptional}},
	typTensor:   {1: {use: number}, 2: {use: body, of: shape}},
	typSequence: {1: {use: body, of: typ}},
	typMap:      {1: {use: number}, 2: {use: body, of: typ}},
	typOptional: {1: {use: body, of: typ}},
	typOpaque:   {1: {use: text}, 2: {use: text}},
	shape:       {1: {use: body, many: true, of: dim}},
	dim:         {1: {use: number}, 2: {use: text}, 3: {use: text}},
	training:    {1: {use: body, of: graph}, 2: {use: body, of: graph}, 3: {use: body, many: true, of: entry}, 4: {use: body, many: true, of: entry}},
	function: {
		1: {use: text}, 4: {use: raw, many: true}, 5: {use: raw, many: true}, 6: {use: raw, many: true}, 7: {use: body, many: true, of: node},
		8: {use: raw}, 9: {use: body, many: true, of: opset}, 10: {use: text}, 11: {use: body, many: true, of: attribute},
		12: {use: body, many: true, of: value}, 13: {use: text}, 14: {use: body, many: true, of: entry},
	},
	annotation:  {1: {use: text}, 2: {use: body, many: true, of: entry}},
	device:      {1: {use: text}, 2: {use: number}, 3: {use: raw, many: true}},
	deviceUse:   {1: {use: text}, 2: {use: body, many: true, of: sharding}, 3: {use: number}},
	sharding:    {1: {use: text}, 2: {use: number, many: true}, 3: {use: body, many: true, of: deviceGroup}, 4: {use: body, many: true, of: shardedDim}},
	shardedDim:  {1: {use: number}, 2: {use: body, many: true, of: simpleDim}},
	simpleDim:   {1: {use: number}, 2: {use: text}, 3: {use: number}},
	deviceGroup: {1: {use: number}, 2: {use: number, many: true}},
}

// Fields of a tensor that are asked for by name.
const (
	dims, dataType, floatData, int32Data, stringData, int64Data = 1, 2, 4, 5, 6, 7
	rawData, doubleData, uint64Data, dataLocation               = 9, 10, 11, 14
)

// fits reports whether a field may be written as it is: packed or one by one.
func (f *field) fits(t wire.Type) bool {
	switch f.use {
	case number:
		return t == wire.Varint || f.many && t == wire.Bytes
	case single:
		return t == wire.Fixed32 || f.many && t == wire.Bytes
	case double:
		return t == wire.Fixed64 || f.many && t == wire.Bytes
	}
	return t == wire.Bytes
}
