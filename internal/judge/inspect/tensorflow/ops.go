package tensorflow

import (
	"regexp"
	"strings"
)

// reaching are operations that read or write files, go to the network, call Python
// or take over the process; a model that computes needs none of them. Those that
// save and restore variables are what every saved model has. Constant.
var reaching = regexp.MustCompile(`^(` +
	`ReadFile|WriteFile|MatchingFiles|MatchingFilesDataset|PyFunc|PyFuncStateless|EagerPyFunc|PyFuncTyped|LoadAndRemapMatrix|GenerateVocabRemapping|` +
	`[A-Za-z]*Reader(V2)?|Reader[A-Z][A-Za-z0-9]*|LMDBDataset|Experimental[A-Za-z]*Dataset(ToTFRecord)?|SqlDataset|TextLineDataset|TFRecordDataset(V2)?|FixedLengthRecordDataset(V2)?|` +
	`CSVDataset(V2)?|SaveDataset(V2)?|LoadDataset|SnapshotDataset(V2|Reader)?|SnapshotNestedDatasetReader|CacheDataset(V2)?|DatasetToTFRecord|DataService[A-Za-z0-9]*|RegisterDataset(V2)?|` +
	`PrintV2|Debug[A-Z][A-Za-z0-9]*|CreateSummary[A-Za-z]*|WriteSummary|Write[A-Z][A-Za-z]*Summary|ImportEvent|SummaryWriter|FlushSummaryWriter|FileSystemSetConfiguration|` +
	`EncodeProto|DecodeProtoV2|Rpc[A-Za-z]*|TryRpc|RemoteCall|RemoteFusedGraphExecute|_?(Host)?(Send|Recv)|Collective[A-Z][A-Za-z0-9]*|Nccl[A-Z][A-Za-z]*|` +
	`Kafka[A-Za-z0-9]*|BigQuery[A-Za-z0-9]*|BigTable[A-Za-z0-9]*|IO>.*|AvroRecordDataset|ParquetDataset|Shell[A-Za-z]*|Exec[A-Z][A-Za-z]*|Subprocess[A-Za-z]*|System|` +
	`SaveSlices|DistributedSave|DTensorRestoreV2|DumpTensor|ImmutableConst|RecordInput|SnapshotChunkDataset|Copy|CopyHost|Abort|_?ConfigureDistributedTPU|TPU[A-Za-z0-9]*|XlaHostCompute|XlaSendToHost|XlaRecvFromHost|Outfeed[A-Za-z]*|Infeed[A-Za-z]*` +
	`)$`)

// computing are the operations of TensorFlow that graphs for inference consist of.
const computing = `
Abs Acos Acosh Add AddN AddV2 AdjustContrastv2 AdjustHue AdjustSaturation All Any ApplyAdam ArgMax ArgMin AsString Asin Asinh Assert Assign AssignAdd AssignAddVariableOp
AssignSub AssignSubVariableOp AssignVariableOp Atan Atan2 Atanh AudioSpectrogram AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchNormWithGlobalNormalization BatchToSpace
BatchToSpaceND BiasAdd BiasAddGrad BiasAddV1 Bincount Bitcast BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastTo Bucketize Case Cast Ceil CheckNumerics ClipByValue
CombinedNonMaxSuppression Complex ComplexAbs Concat ConcatOffset ConcatV2 Conj Const ControlTrigger Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2 Cos Cosh
CropAndResize Cross CTCGreedyDecoder CTCBeamSearchDecoder CudnnRNN CudnnRNNV2 CudnnRNNV3 Cumprod Cumsum DecodeAndCropJpeg DecodeBase64 DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng
DecodeRaw DecodeWav DenseBincount DepthToSpace DepthwiseConv2dNative Dequantize Diag DiagPart Dilation2D Div DivNoNan DynamicPartition DynamicStitch Einsum Elu Empty EncodeBase64 EncodeJpeg
EncodePng EnsureShape Enter Equal Erf Erfc Erfinv Exit Exp ExpandDims Expm1 ExtractImagePatches FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Fill Fingerprint
Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 FusedPadConv2D FusedResizeAndPadConv2D Gather GatherNd GatherV2 Greater GreaterEqual HashTable HashTableV2 HistogramFixedWidth
Identity IdentityN If Igamma Imag ImageProjectiveTransformV2 ImageProjectiveTransformV3 InTopK InTopKV2 InitializeTable InitializeTableV2 Inv InvertPermutation
IsFinite IsInf IsNan L2Loss LRN LeakyRelu Less LessEqual Lgamma LinSpace ListDiff Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr LookupTableExportV2 LookupTableFind LookupTableFindV2 LookupTableImportV2
LookupTableInsertV2 LookupTableSize LookupTableSizeV2 LookupTableRemoveV2 LoopCond LowerBound MatMul MatrixBandPart MatrixDeterminant MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixInverse
MatrixSetDiag MatrixSetDiagV3 MatrixSolve MatrixTriangularSolve Max MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax Maximum Mean Merge MergeV2Checkpoints Mfcc Min Minimum MirrorPad Mod Mul MulNoNan Multinomial
MutableDenseHashTableV2 MutableHashTable MutableHashTableV2 MutableHashTableOfTensorsV2 Neg NextAfter NextIteration NoOp NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5
NotEqual OneHot OnesLike Pack Pad PadV2 ParallelDynamicStitch ParseExample ParseExampleV2 ParseSingleExample ParseTensor PartitionedCall Placeholder PlaceholderV2 PlaceholderWithDefault Pow PreventGradient Prod
Qr QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2 QuantizedAdd QuantizedConv2D QuantizedMatMul QuantizedRelu RFFT RFFT2D IRFFT IRFFT2D FFT FFT2D IFFT RGBToHSV HSVToRGB
RaggedBincount RaggedGather RaggedRange RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor RaggedTensorToVariant RandomGamma RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt
Range Rank ReadVariableOp Real RealDiv Reciprocal RegexFullMatch RegexReplace Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ResourceApplyAdam ResourceApplyGradientDescent
ResourceGather ResourceGatherNd ResourceScatterAdd ResourceScatterUpdate Restore RestoreSlice RestoreV2 Reverse ReverseSequence ReverseV2 RightShift LeftShift Rint Roll Round Rsqrt SampleDistortedBoundingBoxV2 Save SaveV2
ScalarSummary ScaleAndTranslate ScatterNd ScatterUpdate SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2 Selu ShapeN Shape ShardedFilename ShardedFilespec Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
Softsign SpaceToBatch SpaceToBatchND SpaceToDepth SparseAdd SparseConcat SparseFillEmptyRows SparseReorder SparseReshape SparseSegmentMean SparseSegmentSqrtN SparseSegmentSum SparseSlice SparseSplit
SparseTensorDenseMatMul SparseToDense Split SplitV Sqrt Square SquaredDifference Squeeze StackV2 StackPopV2 StackPushV2 StatefulPartitionedCall StatelessIf StatelessCase StatelessWhile StatelessRandomGetAlg StatelessRandomGetKeyCounter
StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomUniform StatelessRandomUniformV2 StatelessRandomUniformIntV2 StatelessMultinomial StaticRegexFullMatch StaticRegexReplace StopGradient StridedSlice StringFormat StringJoin StringLength StringLower
StringNGrams StringSplit StringSplitV2 StringStrip StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Sub Substr Sum Svd Switch SymbolicGradient Tan Tanh TensorArrayCloseV3 TensorArrayConcatV3
TensorArrayGatherV3 TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3 TensorArrayV3 TensorArrayWriteV3 TensorListConcat TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem
TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize TensorListSetItem TensorListSplit TensorListStack EmptyTensorList TensorScatterAdd TensorScatterUpdate TensorScatterMax TensorScatterMin TensorStridedSliceUpdate Tile TopK TopKV2 Transpose TridiagonalSolve
TruncateDiv TruncateMod TruncatedNormal UnicodeDecode UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode Unique UniqueV2 UniqueWithCounts Unpack UnravelIndex UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum
UpperBound VarHandleOp VarIsInitializedOp Variable VariableV2 VariableShape DestroyResourceOp Where While Xdivy Xlog1py Xlogy ZerosLike Zeta Polygamma Digamma _FusedConv2D _FusedMatMul _Arg _Retval _DeviceArg _DeviceRetval
DisableCopyOnRead AnonymousIterator AnonymousHashTable AnonymousMutableHashTable DeepCopy CountUpTo FusedBatchNormGradV3 ReluGrad MaxPoolGrad Conv2DBackpropFilter SigmoidGrad TanhGrad BroadcastGradientArgs StringToHashBucketFast ApproximateEqual Betainc AccumulateNV2
`

// vocabulary are operations that read a file of words, as models of text do: where
// it is stands in a tensor.
func vocabulary(op string) bool { return strings.HasPrefix(op, "InitializeTableFromTextFile") }

// saves reports whether an operation writes variables to a path that a tensor holds.
func saves(op string) bool {
	return op == "Save" || op == "SaveV2" || op == "SaveSlices" || op == "MergeV2Checkpoints"
}

func reaches(op string) bool { return reaching.MatchString(op) }
func computes(op string) bool {
	return strings.Contains(strings.ReplaceAll(computing, "\n", " "), " "+op+" ")
}
