# BitBake 2.18 sees that these functions run others only as long as its code parser's cache is
# new. So a build directory's second run would be taken for one of another configuration, and
# read all recipes again.
oe.spdx30_tasks.create_package_spdx[vardepsexclude] += "read_subpackage_metadata"
oe.spdx30_tasks.create_spdx[vardepsexclude] += "read_subpackage_metadata"
oe.spdx_common.get_patched_src[vardepsexclude] += "do_convert_crlf_to_lf do_patch do_unpack"
