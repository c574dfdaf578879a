# Language, warnings, hardening and sanitizers: the same for each folder.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

find_program(SKERRY_CCACHE ccache)
if(SKERRY_CCACHE AND NOT CMAKE_C_COMPILER_LAUNCHER)
	set(CMAKE_C_COMPILER_LAUNCHER "${SKERRY_CCACHE}")
endif()

set(SKERRY_GEN_DIR "${CMAKE_BINARY_DIR}/gen")
file(MAKE_DIRECTORY "${SKERRY_GEN_DIR}")

# Flags for our own sources (generated and foreign ones get only the hardening). Texts for people are cut to their buffer
# on purpose, so the optimizer's guesses about snprintf are not asked.
add_library(skerry_flags INTERFACE)
target_include_directories(skerry_flags INTERFACE "${CMAKE_SOURCE_DIR}" "${SKERRY_GEN_DIR}")
target_compile_definitions(skerry_flags INTERFACE _GNU_SOURCE SKERRY_VERSION="${PROJECT_VERSION}")
target_compile_options(skerry_flags INTERFACE
	-Wall -Wextra -Wshadow -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes -Wvla
	$<IF:$<C_COMPILER_ID:GNU>,-Wimplicit-fallthrough=5,-Wimplicit-fallthrough>
	$<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>
	$<$<BOOL:${SKERRY_WERROR}>:-Werror>)

if(SKERRY_TEST_LEVEL_MAX)
	target_compile_definitions(skerry_flags INTERFACE SKERRY_TEST_LEVEL_MAX=${SKERRY_TEST_LEVEL_MAX})
endif()

add_compile_options(-fstack-protector-strong -fstack-clash-protection -fno-strict-aliasing -fno-omit-frame-pointer
	"-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=")
add_link_options(-Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed)

if(SKERRY_SANITIZE STREQUAL "address")
	add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
	add_link_options(-fsanitize=address,undefined)
elseif(SKERRY_SANITIZE STREQUAL "thread")
	add_compile_options(-fsanitize=thread)
	add_link_options(-fsanitize=thread)
elseif(SKERRY_SANITIZE STREQUAL "fuzzer")
	if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
		message(FATAL_ERROR "SKERRY_SANITIZE=fuzzer needs clang: cmake --preset fuzz")
	endif()
	add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
	add_link_options(-fsanitize=address,undefined)
elseif(SKERRY_SANITIZE)
	message(FATAL_ERROR "SKERRY_SANITIZE=${SKERRY_SANITIZE}: expected address, thread, fuzzer or nothing")
else()
	add_compile_options($<$<CONFIG:RelWithDebInfo,Release,MinSizeRel>:-D_FORTIFY_SOURCE=2>)
endif()
