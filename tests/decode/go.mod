module oomwatch/decode

go 1.26.0

require (
	github.com/DataDog/agent-payload/v5 v5.0.215
	github.com/klauspost/compress v1.20.3
)

require github.com/gogo/protobuf v1.3.2 // indirect
