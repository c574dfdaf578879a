add_test(NAME test_generate COMMAND "${SKERRY_PYTHON}" "${dir}/generate_test.py" "${SKERRY_PROTOC}"
	"${SKERRY_PROTOBUF_INCLUDE}" "${CMAKE_SOURCE_DIR}/proto/generate.py")
set_tests_properties(test_generate PROPERTIES LABELS unit TIMEOUT 60)
