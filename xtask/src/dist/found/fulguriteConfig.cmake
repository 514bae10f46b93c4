# Exact attention for NVIDIA Hopper GPUs: the target fulgurite::fulgurite.
get_filename_component(_fulgurite_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET fulgurite::fulgurite)
  add_library(fulgurite::fulgurite SHARED IMPORTED)
  set_target_properties(fulgurite::fulgurite PROPERTIES
    IMPORTED_LOCATION "${_fulgurite_prefix}/lib/libfulgurite.so.@MAJOR@"
    IMPORTED_SONAME "libfulgurite.so.@MAJOR@"
    INTERFACE_INCLUDE_DIRECTORIES "${_fulgurite_prefix}/include")
endif()
unset(_fulgurite_prefix)
